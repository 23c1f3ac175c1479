module github.com/watchword-dev/watchword/tools

go 1.26.0

replace github.com/watchword-dev/watchword => ../
