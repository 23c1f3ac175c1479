package revocation

import (
	"syscall"
	"time"
	"unsafe"
)

// boottime reads CLOCK_BOOTTIME, which goes on while the host sleeps; 0: it cannot be read.
func boottime() time.Duration {
	const clockBoottime = 7 // clock_gettime(2)
	var ts syscall.Timespec
	if _, _, failed := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&ts)), 0); failed != 0 {
		return 0
	}
	return time.Duration(ts.Nano())
}
