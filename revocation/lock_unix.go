//go:build unix && !solaris && !aix

package revocation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// LockFolder makes a folder, if it is not there, and keeps it for this process, until the file is closed or the process
// ends. The error names the folder.
func LockFolder(folder string) (*os.File, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errors.New("another process uses it: give every Watchword a folder of its own")
		}
		return nil, fmt.Errorf("%s: %w", folder, err)
	}
	return f, nil
}
