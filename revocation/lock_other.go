//go:build !unix || solaris || aix

package revocation

import (
	"fmt"
	"os"
	"path/filepath"
)

// lockFolder cannot keep others out here.
func lockFolder(folder string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("revocation: %w", err)
	}
	return f, nil
}
