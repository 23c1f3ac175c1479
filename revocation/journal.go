package revocation

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A log is frames, each written and synced as a whole, so that only the last one can be torn:
//
//	magic 4 | length of the payload 4 | CRC-32C of the payload 4 | payload: lines, each after its length
const (
	frameMagic = "WWL1"
	frameHead  = 12
	maxFrame   = 1 << 20
	maxLine    = MaxEventBytes + 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendFrame(b, payload []byte) []byte {
	b = append(b, frameMagic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(payload, castagnoli))
	return append(b, payload...)
}

// readFrame reads the frame at the beginning of r. Not ok: there is no whole one.
func readFrame(r io.Reader) (payload []byte, ok bool, err error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, false, notEnd(err)
	}
	length := binary.BigEndian.Uint32(head[4:])
	if string(head[:4]) != frameMagic || length > maxFrame+maxLine {
		return nil, false, nil
	}
	payload = make([]byte, length)
	if _, err := io.ReadFull(r, payload); err != nil {
		return nil, false, notEnd(err)
	}
	return payload, crc32.Checksum(payload, castagnoli) == binary.BigEndian.Uint32(head[8:]), nil
}

func notEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// lines yields the lines of a payload; the last one is nil where the payload is none.
func lines(payload []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for p := (&parser{b: payload}); len(p.b) > 0 && !p.bad; {
			line := p.take(p.uvarint(maxLine))
			if !yield(line) {
				return
			}
		}
	}
}

// readLog calls each with every line, and returns how many bytes of the log are whole. What is torn at its end was
// never acknowledged; where something whole follows what is not, the log is damaged.
func readLog(f *os.File, each func(line []byte) error) (whole int64, err error) {
	r := bufio.NewReaderSize(f, 1<<16)
	for {
		payload, ok, err := readFrame(r)
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		for line := range lines(payload) {
			if err := each(line); err != nil {
				return 0, fmt.Errorf("%s: at byte %d: %w: it was written by another version, or is damaged; see docs/revocation.md", f.Name(), whole, err)
			}
		}
		whole += int64(frameHead + len(payload))
	}
	rest, err := io.ReadAll(io.NewSectionReader(f, whole, 1<<62))
	if err != nil {
		return 0, err
	}
	for i := 1; i < len(rest); i++ {
		next := bytes.Index(rest[i:], []byte(frameMagic))
		if next < 0 {
			break
		}
		i += next
		if _, ok, _ := readFrame(bytes.NewReader(rest[i:])); ok {
			return 0, fmt.Errorf("%s: is damaged at byte %d, and whole again at byte %d: restore it from a backup, or move it away; without it everything is asked for again, and what operators denied must be denied again", f.Name(), whole, whole+int64(i))
		}
	}
	return whole, nil
}

// file is what a journal needs of an *os.File, so that a test can let one fail.
type file interface {
	io.WriterAt
	io.Closer
	Sync() error
}

// journal is a log that grows. Safe for concurrent use.
type journal struct {
	folder string
	lock   *os.File

	mu       sync.Mutex
	pending  [][]byte      // payloads that are not written
	appended int64         // lines, ever
	durable  int64         // of appended
	synced   chan struct{} // closed when the commit that goes on ends; nil: none does

	sync   sync.Mutex // one writer of the file; taken before mu
	file   file
	bytes  int64
	broken error     // the file cannot be trusted to take more: it must be written anew
	tried  time.Time // to write it anew
	floor  int64     // bytes after it was last written anew
}

// append takes a line, to be durable after the next commit.
func (j *journal) append(line []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if last := len(j.pending) - 1; last < 0 || len(j.pending[last])+len(line) > maxFrame {
		j.pending = append(j.pending, nil)
	}
	last := &j.pending[len(j.pending)-1]
	*last = append(binary.AppendUvarint(*last, uint64(len(line))), line...)
	j.appended++
}

// commit returns nil when all that was appended before is durable. Those who come while another one syncs share the
// next sync. The file should be written anew on an error, and where less than bulk of it is still needed.
func (j *journal) commit() (bulk int64, err error) {
	j.mu.Lock()
	upTo := j.appended
	for j.synced != nil {
		other := j.synced
		j.mu.Unlock()
		<-other
		j.mu.Lock()
		if j.durable >= upTo {
			j.mu.Unlock()
			return 0, nil
		}
	}
	mine := make(chan struct{})
	j.synced = mine
	j.mu.Unlock()
	defer func() {
		j.mu.Lock()
		j.synced = nil
		j.mu.Unlock()
		close(mine) // wakes all at once
	}()
	return j.write()
}

// write makes what is pending durable.
func (j *journal) write() (bulk int64, err error) {
	j.sync.Lock()
	defer j.sync.Unlock()
	if j.broken != nil {
		return 0, j.broken
	}
	j.mu.Lock()
	frames, all := j.pending, j.appended
	j.pending = nil
	j.mu.Unlock()
	for _, payload := range frames {
		frame := appendFrame(nil, payload)
		_, err := j.file.WriteAt(frame, j.bytes)
		if err == nil {
			err = j.file.Sync()
		}
		if err != nil { // what a failed sync left on disk, nobody knows
			j.broken = fmt.Errorf("the revocation log could not be written: %w", err)
			return 0, j.broken
		}
		j.bytes += int64(len(frame))
	}
	j.mu.Lock()
	j.durable = all
	j.mu.Unlock()
	if bulk = (j.bytes - 1<<20) / 2; bulk <= j.floor || time.Since(j.tried) < time.Second {
		return 0, nil
	}
	return bulk, nil
}

// rewrite replaces the file by one that holds these lines. All that was appended must be among them.
func (j *journal) rewrite(all iter.Seq[[]byte]) error {
	j.sync.Lock()
	defer j.sync.Unlock()
	if j.broken != nil && time.Since(j.tried) < time.Second {
		return j.broken
	}
	j.tried = time.Now()
	f, n, err := create(j.folder, all)
	if err != nil {
		if j.broken != nil {
			err = fmt.Errorf("the revocation log could not be written: %w", err)
			j.broken = err
		}
		return err
	}
	if j.file != nil {
		_ = j.file.Close()
	}
	j.mu.Lock()
	j.pending, j.durable = nil, j.appended
	j.mu.Unlock()
	j.file, j.bytes, j.floor, j.broken = f, n, n, nil
	return nil
}

// create writes a log beside the present one, and lets it take its name when it is durable.
func create(folder string, all iter.Seq[[]byte]) (f *os.File, n int64, err error) {
	if f, err = os.OpenFile(filepath.Join(folder, "log.new"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	var payload []byte
	flush := func() {
		if err == nil && len(payload) > 0 {
			var wrote int
			wrote, err = f.Write(appendFrame(nil, payload))
			n, payload = n+int64(wrote), payload[:0]
		}
	}
	for line := range all {
		if payload = append(binary.AppendUvarint(payload, uint64(len(line))), line...); len(payload) > maxFrame-maxLine {
			flush()
		}
	}
	if flush(); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(folder, "log"))
	}
	if err == nil {
		err = syncFolder(folder)
	}
	return f, n, err
}

func syncFolder(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (j *journal) size() int64 {
	if j == nil {
		return 0
	}
	j.sync.Lock()
	defer j.sync.Unlock()
	return j.bytes
}

func (j *journal) close() error {
	j.sync.Lock()
	defer j.sync.Unlock()
	j.broken = errors.New("the revocation log is closed")
	j.tried = time.Now().Add(time.Hour)
	var err error
	if j.file != nil {
		err = j.file.Close()
	}
	return errors.Join(err, j.lock.Close())
}
