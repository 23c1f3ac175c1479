package nats

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/watchword-dev/watchword/revocation"
)

// link is a connection that knows why it is none. The client itself tells who uses it only that there is no connection.
// Safe for concurrent use.
type link struct {
	*nats.Conn
	where string

	mu   sync.Mutex
	why  error         // it cannot be connected, or may not do something; nil: neither was heard since it is connected
	told chan struct{} // closed once the first attempt ended
}

// options tell the link what becomes of it.
func (k *link) options() []nats.Option {
	up := func(*nats.Conn) { k.note(nil) }
	return []nats.Option{
		nats.ConnectHandler(up),
		nats.ReconnectHandler(up),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { k.note(err) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				k.note(err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { // the default prints
			if errors.Is(err, nats.ErrPermissionViolation) || refuses(err) {
				k.note(err)
			}
		}),
	}
}

func (k *link) note(why error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.why = why; k.told != nil {
		close(k.told)
		k.told = nil
	}
}

// refuses reports that err is about our credential.
func refuses(err error) bool {
	for _, one := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

// failed says where err of a call happened and, where the client does not know but the link does, why. Where nothing is
// known of the connection yet it waits for that, as long as ctx allows.
func (k *link) failed(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	k.mu.Lock()
	told := k.told
	k.mu.Unlock()
	if told != nil {
		select {
		case <-told:
		case <-ctx.Done():
		}
	}
	k.mu.Lock()
	why := k.why
	k.mu.Unlock()
	switch {
	case why == nil || !silent(err):
		return fmt.Errorf("nats %s: %w", k.where, err)
	case refuses(why):
		return fmt.Errorf("nats %s: %w (%v)", k.where, revocation.ErrCredential, why)
	case errors.Is(why, nats.ErrPermissionViolation):
		return fmt.Errorf("nats %s: %w: %w", k.where, revocation.ErrForbidden, why)
	}
	return fmt.Errorf("nats %s: %w", k.where, why)
}

// silent reports that err says no more than that nothing came back.
func silent(err error) bool {
	for _, one := range []error{context.DeadlineExceeded, nats.ErrTimeout, nats.ErrReconnectBufExceeded, nats.ErrConnectionReconnecting, nats.ErrDisconnected} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}
