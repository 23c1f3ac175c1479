module github.com/watchword-dev/watchword/interop

go 1.26.0

require github.com/watchword-dev/watchword v0.0.0

require (
	github.com/maypok86/otter/v2 v2.4.0 // indirect
	github.com/redis/rueidis v1.0.79 // indirect
	golang.org/x/sys v0.48.0 // indirect
)

replace github.com/watchword-dev/watchword => ../
