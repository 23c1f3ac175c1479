package app

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// maxConnections bounds what one listener serves at once; a further connection waits in the kernel's queue.
const maxConnections = 16384

// open listens at l. On a unix socket, mode says who may connect; a file that nobody listens at any more is replaced.
func (l Listen) open(mode uint32) (net.Listener, error) {
	var inner net.Listener
	var err error
	if l.Network == "unix" {
		inner, err = openSocket(l.Address, os.FileMode(mode))
	} else {
		inner, err = net.Listen(l.Network, l.Address)
	}
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", l, err)
	}
	return &bounded{Listener: inner, room: make(chan struct{}, maxConnections), closed: make(chan struct{})}, nil
}

// socket is a unix listener that removes its file when it closes, unless somebody else has put another one there.
type socket struct {
	net.Listener
	path string
	file fs.FileInfo
}

// openSocket binds beside path and renames: at no instant can the file be connected to with other permissions, and a
// stale one disappears only when its successor is there.
func openSocket(path string, mode os.FileMode) (net.Listener, error) {
	if err := vacant(path); err != nil {
		return nil, err
	}
	var random [3]byte
	_, _ = rand.Read(random[:]) // never fails (crypto/rand)
	beside := filepath.Join(filepath.Dir(path), ".w"+hex.EncodeToString(random[:]))
	inner, err := net.ListenUnix("unix", &net.UnixAddr{Name: beside, Net: "unix"})
	if err != nil {
		return nil, err
	}
	inner.SetUnlinkOnClose(false)
	s := &socket{Listener: inner, path: path}
	err = os.Chmod(beside, mode)
	if err == nil {
		s.file, err = os.Lstat(beside)
	}
	if err == nil {
		err = os.Rename(beside, path)
	}
	if err != nil {
		return nil, errors.Join(err, inner.Close(), os.Remove(beside))
	}
	return s, nil
}

// vacant reports, as an error, why nothing may be put at path: somebody listens there, or it is no socket.
func vacant(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("something that is no socket is there: remove it, or choose another path")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
		return errors.New("somebody listens there already: stop that process, or choose another path")
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil // nobody does any more
	}
	return fmt.Errorf("a socket is there, and whether somebody listens cannot be told: %w", err)
}

// Addr is the address that was asked for.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Close stops listening and removes the file.
func (s *socket) Close() error {
	if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.file) {
		_ = os.Remove(s.path)
	}
	return s.Listener.Close()
}

// bounded accepts no more than there is room for.
type bounded struct {
	net.Listener
	room   chan struct{}
	once   sync.Once
	closed chan struct{}
}

// Accept waits for room, then for a connection.
func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.room <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.room
		return nil, err
	}
	return &roomy{Conn: c, leave: sync.OnceFunc(func() { <-b.room })}, nil
}

// Close also ends an Accept that waits for room.
func (b *bounded) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Listener.Close()
}

// roomy gives its room back when it closes.
type roomy struct {
	net.Conn
	leave func()
}

// Close closes the connection.
func (c *roomy) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
