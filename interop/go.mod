module github.com/watchword-dev/watchword/interop

go 1.26.0

require github.com/watchword-dev/watchword v0.0.0

replace github.com/watchword-dev/watchword => ../
