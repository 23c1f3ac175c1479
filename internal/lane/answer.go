package lane

import (
	"net/http"
	"strconv"
	"strings"
)

const keepBytes = 16 << 10 // longer buffers are not kept for the next answer

// answer is the http.ResponseWriter. It sends nothing before the handler is done.
type answer struct {
	header            http.Header
	status            int
	head, body        []byte
	length            string // what the handler says of Content-Length, which counts where the method is HEAD
	close             bool
	said, typed, when bool // the handler said something of Connection, Content-Type, Date
}

func (a *answer) reset() {
	clear(a.header)
	head, body := a.head, a.body
	if cap(head)+cap(body) > keepBytes {
		head, body = nil, nil
	}
	*a = answer{header: a.header, head: head[:0], body: body[:0]}
}

// Header is what WriteHeader will send.
func (a *answer) Header() http.Header { return a.header }

// Write adds to the body.
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.status == http.StatusNoContent || a.status == http.StatusNotModified {
		return 0, http.ErrBodyNotAllowed
	}
	a.body = append(a.body, p...)
	return len(p), nil
}

// WriteHeader settles status and header, once; there are no informational answers.
func (a *answer) WriteHeader(status int) {
	if a.status != 0 || status < 200 {
		return
	}
	a.status = status
	if status == http.StatusOK {
		a.head = append(a.head, "HTTP/1.1 200 OK\r\n"...)
	} else {
		a.head = append(a.head, "HTTP/1.1 "...)
		a.head = strconv.AppendInt(a.head, int64(status), 10)
		a.head = append(append(append(a.head, ' '), http.StatusText(status)...), "\r\n"...)
	}
	for name, values := range a.header {
		switch name {
		case "Content-Length":
			a.length = strings.Join(values, "")
			continue
		case "Connection":
			a.said = len(values) > 0
			for _, v := range values {
				a.close = a.close || strings.EqualFold(v, "close")
			}
		case "Content-Type":
			a.typed = true
		case "Date":
			a.when = true
		}
		if !isToken(name) {
			continue
		}
		for _, v := range values {
			a.line(name, v)
		}
	}
}

// line writes a field; a value cannot begin a second one.
func (a *answer) line(name, value string) {
	a.head = append(append(a.head, name...), ": "...)
	from := len(a.head)
	a.head = append(a.head, value...)
	for i, c := range a.head[from:] {
		if c == '\r' || c == '\n' {
			a.head[from+i] = ' '
		}
	}
	a.head = append(a.head, "\r\n"...)
}

// finish returns all that is to be sent.
func (a *answer) finish(isHead, last bool, now string) []byte {
	a.WriteHeader(http.StatusOK)
	if a.status == http.StatusNoContent || a.status == http.StatusNotModified {
		a.typed, a.length, isHead = true, "", true
	}
	if !a.typed && len(a.body) > 0 {
		a.line("Content-Type", http.DetectContentType(a.body))
	}
	if !a.when {
		a.line("Date", now)
	}
	if last && !a.said {
		a.line("Connection", "close")
	}
	a.close = a.close || last
	switch {
	case !isHead || len(a.body) > 0:
		a.head = append(a.head, "Content-Length: "...)
		a.head = strconv.AppendInt(a.head, int64(len(a.body)), 10)
		a.head = append(a.head, "\r\n"...)
	case a.length != "":
		a.line("Content-Length", a.length)
	}
	a.head = append(a.head, "\r\n"...)
	if isHead {
		return a.head
	}
	a.head = append(a.head, a.body...)
	return a.head
}

// isToken is what a field's name must be (RFC 9110 §5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		if class[s[i]]&(inName|inToken) == 0 {
			return false
		}
	}
	return s != ""
}
