package revocation

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/watchword-dev/watchword"
)

// open finds the key, and reads the log into books that nobody is configured for yet.
func (l *Ledger) open() error {
	folder, key := l.config.Folder, l.config.Key
	if folder == "" {
		if key == (Key{}) {
			key = randomKey()
		}
		l.keys = append([]Key{key}, l.config.Previous...)
		return nil
	}
	if !l.config.ReadOnly {
		lock, err := LockFolder(folder)
		if err != nil {
			return fmt.Errorf("revocation: %w", err)
		}
		l.journal = &journal{folder: folder, lock: lock}
	}
	err := l.load(folder, key)
	if err != nil && l.journal != nil {
		_ = l.journal.close()
	}
	return err
}

func (l *Ledger) load(folder string, key Key) error {
	kept, err := keptKey(folder, key == Key{} && !l.config.ReadOnly)
	if err != nil {
		return fmt.Errorf("revocation: %w", err)
	}
	for _, k := range append([]Key{key, kept}, l.config.Previous...) {
		if k != (Key{}) && !slices.Contains(l.keys, k) {
			l.keys = append(l.keys, k)
		}
	}
	if len(l.keys) == 0 {
		l.keys = []Key{randomKey()}
	}
	if err := l.replay(filepath.Join(folder, "log")); err != nil {
		return fmt.Errorf("revocation: %w", err)
	}
	return nil
}

// keptKey reads the key in folder, or makes one.
func keptKey(folder string, make bool) (k Key, err error) {
	path := filepath.Join(folder, "key")
	body, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && make:
		k = randomKey()
		return k, writeKey(folder, k)
	case errors.Is(err, fs.ErrNotExist):
		return k, nil
	case err != nil:
		return k, err
	case len(body) != len(k):
		return k, fmt.Errorf("%s: is no ledger key: restore it from a backup, or move it and the log away", path)
	}
	return Key(body), nil
}

func writeKey(folder string, k Key) error {
	f, err := os.OpenFile(filepath.Join(folder, "key.new"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(k[:])
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(folder, "key")); err != nil {
		return err
	}
	return syncFolder(folder)
}

// replay puts what the log holds in force.
func (l *Ledger) replay(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if l.config.ReadOnly {
		f, err = os.Open(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if l.journal == nil {
			return nil
		}
		return l.journal.rewrite(l.snapshot)
	}
	if err != nil {
		return err
	}
	began, alien, tokens := time.Now(), false, 0
	whole, err := readLog(f, func(line []byte) error {
		token, foreign, err := l.replayLine(line, nanos(began))
		alien = alien || foreign
		if token {
			tokens++
		}
		return err
	})
	if err == nil && alien && tokens > 0 {
		err = fmt.Errorf("%s: its %d token events were made under another ledger key: give that key as well, or move the log away", path, tokens)
	}
	if err != nil || l.journal == nil {
		return errors.Join(err, f.Close())
	}
	info, err := f.Stat()
	if err == nil && info.Size() > whole {
		l.config.Logger.Warn("the end of the revocation log was torn and is cut off: nothing of it had been acknowledged", "file", path, "bytes", info.Size()-whole)
		err = errors.Join(f.Truncate(whole), f.Sync())
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.journal.file, l.journal.bytes = f, whole
	if alien { // from now on it is ours
		return l.journal.rewrite(l.snapshot)
	}
	l.makeRoom()
	return nil
}

// replayLine reports whether the line is about a token, and whether it names a key that is not ours.
func (l *Ledger) replayLine(line []byte, now int64) (token, foreign bool, err error) {
	if len(line) == 0 {
		return false, false, errLine
	}
	switch line[0] {
	case lineKey:
		return false, !slices.ContainsFunc(l.keys, func(k Key) bool { return bytes.Equal(line, keyLine(&k)) }), nil
	case lineForgotten:
		issuer, until, err := parseForgottenLine(line)
		if err != nil {
			return false, false, err
		}
		if b := l.replayed(issuer); !until.IsZero() {
			l.replayForgotten(b, until)
		}
		return false, false, nil
	}
	e, applied, err := parseEventLine(line)
	if err != nil {
		return false, false, err
	}
	b, id := l.replayed(e.Issuer), identity(&e)
	if l.store.byID[id] != nil {
		return false, false, nil
	}
	r := newHeld(b, id, &e, applied)
	if r.end <= now {
		l.replayForgotten(b, instant(applied).Add(b.issuer.Settle))
	} else {
		l.hold(b, r, &e, applied)
	}
	return e.Token != TokenID{}, false, nil
}

func (l *Ledger) replayForgotten(b *book, until time.Time) {
	next := *b.view.Load()
	if next.forgotten.IsZero() || watchword.Age(until, next.forgotten) > 0 {
		next.forgotten = until
		b.view.Store(&next)
	}
}

// replayed is the book of an issuer in the log.
func (l *Ledger) replayed(name string) *book {
	books := *l.books.Load()
	b := books[name]
	if b == nil {
		is := Issuer{Name: name, MaxTokenLife: maxTokenLife} // not configured now: nothing of it may be lost
		for _, configured := range l.config.Issuers {
			if configured.Name == name {
				is = configured
			}
		}
		is.setDefaults()
		b = newBook(is)
		b.replayed = true
		books[name] = b // nobody reads yet
	}
	return b
}

// snapshot yields the lines of a log that says what is held now. The caller holds mu.
func (l *Ledger) snapshot(yield func(line []byte) bool) {
	for i := range l.keys {
		if !yield(keyLine(&l.keys[i])) {
			return
		}
	}
	for name, b := range *l.books.Load() {
		if !yield(forgottenLine(name, b.view.Load().forgotten)) {
			return
		}
	}
	for r := l.store.oldest; r != nil; r = r.next {
		if !yield([]byte(r.body)) {
			return
		}
	}
}

// Close gives the folder back. What is applied later is in force and not durable.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.journal == nil {
		return nil
	}
	return l.journal.close()
}

// keep appends a line to the log, to be durable at the next commit. The caller holds mu.
func (l *Ledger) keep(line []byte) {
	if l.journal != nil {
		l.journal.append(line)
	}
}

// commit returns nil when all that is held is durable.
func (l *Ledger) commit() error {
	if l.journal == nil {
		return nil
	}
	bulk, err := l.journal.commit()
	if err == nil && bulk == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || bulk > l.store.live {
		if again := l.journal.rewrite(l.snapshot); err != nil {
			err = again // all that is held is in the new file, or nowhere
		}
	}
	return err
}
