//go:build !unix || solaris || aix

package revocation

import (
	"os"
	"path/filepath"
)

// LockFolder makes a folder, if it is not there. It cannot keep others out here.
func LockFolder(folder string) (*os.File, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(folder, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
}
