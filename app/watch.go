package app

import (
	"context"
	"crypto/sha256"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	settle    = 250 * time.Millisecond // for which files must be still, so that none is read half written
	pollEvery = 30 * time.Second       // where the file system does not tell
	maxLinks  = 40                     // followed from one path, as in Linux
)

// follow reloads on every hangup, and when a file that the configuration consists of has changed and is still, until
// ctx ends. Folders are watched, not files: files are replaced by renaming, and symbolic links are switched.
func (a *App) follow(ctx context.Context, hangup <-chan os.Signal) {
	seen := a.now.Load().config.seen
	w := newWatcher(seen.files(), func(err error) {
		a.logger().Warn("files are looked at every "+pollEvery.String()+" only", "error", err)
	})
	defer w.close()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	var pending snapshot
	timer := time.After(settle) // something may have changed since the file was read
	reload := func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		seen, _ = a.reload() // which logs
		w.watch(seen.files())
		pending, timer = nil, time.After(settle) // and again since then
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			reload()
		case <-w.events():
			if timer == nil {
				timer = time.After(settle)
			}
		case <-poll.C:
			if timer == nil {
				timer = time.After(settle)
			}
		case <-timer:
			var still bool
			switch pending, still = moved(seen, pending, look(seen.files())); {
			case still:
				reload()
			case pending != nil:
				timer = time.After(settle)
			default:
				timer = nil
				w.watch(seen.files()) // a link may lead elsewhere, to the same content
			}
		}
	}
}

// moved tells what to make of what files hold now, where seen was read and pending was found the last time: nothing
// has changed (nil, false); something has and is still (nil, true); or it may still be moving (now, false).
func moved(seen, pending, now snapshot) (next snapshot, still bool) {
	switch {
	case maps.Equal(now, seen):
		return nil, false
	case maps.Equal(now, pending):
		return nil, true
	}
	return now, false
}

// snapshot is what files hold, by path: a digest of the content, or of why there is none.
type snapshot map[string][sha256.Size]byte

func look(files []string) snapshot {
	s := snapshot{}
	for _, path := range files {
		body, err := readFile(path, maxConfigBytes)
		if err != nil {
			body = []byte(err.Error())
		}
		s[path] = sha256.Sum256(body)
	}
	return s
}

func (s snapshot) files() []string { return slices.Sorted(maps.Keys(s)) }

// watcher tells that something happened in one of the folders that files are found through.
type watcher struct {
	inner   *fsnotify.Watcher // nil: the system has no more watches
	any     chan struct{}
	done    chan struct{}
	folders []string
}

func newWatcher(files []string, failed func(error)) *watcher {
	w := &watcher{any: make(chan struct{}, 1), done: make(chan struct{})}
	var err error
	if w.inner, err = fsnotify.NewWatcher(); err != nil {
		failed(err)
		w.inner = nil
		close(w.done)
		return w
	}
	w.watch(files)
	go w.run()
	return w
}

// run keeps the system's queue empty, whatever the reader of events does meanwhile.
func (w *watcher) run() {
	defer close(w.done)
	for {
		select {
		case _, ok := <-w.inner.Events:
			if !ok {
				return
			}
		case _, ok := <-w.inner.Errors: // some were lost: look
			if !ok {
				return
			}
		}
		select {
		case w.any <- struct{}{}:
		default:
		}
	}
}

func (w *watcher) events() <-chan struct{} { return w.any }

func (w *watcher) close() {
	if w.inner != nil {
		_ = w.inner.Close()
	}
	<-w.done
}

// watch replaces the folders. One that does not exist is left to polling.
func (w *watcher) watch(files []string) {
	if w.inner == nil {
		return
	}
	var folders []string
	for _, path := range files {
		folders = append(folders, through(path)...)
	}
	slices.Sort(folders)
	folders = slices.Compact(folders)
	for _, gone := range w.folders {
		if !slices.Contains(folders, gone) {
			_ = w.inner.Remove(gone)
		}
	}
	for _, folder := range folders {
		_ = w.inner.Add(folder) // again where it was removed and made anew
	}
	w.folders = folders
}

// through lists the folders in which a change could make path another file: its own, and that of every symbolic link
// on the way to it.
func through(path string) (folders []string) {
	at, rest := "/", strings.Split(filepath.Clean(path), "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == "" {
			continue
		}
		next := filepath.Join(at, name)
		to, err := os.Readlink(next)
		if err != nil || links == maxLinks {
			if len(rest) == 0 {
				folders = append(folders, at)
			}
			at = next
			continue
		}
		links++
		folders = append(folders, at)
		rest = append(strings.Split(filepath.Clean(to), "/"), rest...)
		if filepath.IsAbs(to) {
			at = "/"
		}
	}
	return folders
}
