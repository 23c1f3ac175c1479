package revocation

import (
	"math"
	"time"
)

// mark is the join of all events of one selector: of each kind of fact only the newest is kept, so the order in which
// they arrive makes no difference. Instants are wall nanoseconds; zero: there is none.
type mark struct {
	denied   int64  // the newest instant of a deny that the authorization server knows of
	operator int64  // of one by an operator
	doubted  int64  // when the last deny was applied here
	asked    int64  // when the last revalidate was applied here, or the last event that matches in part
	final    bool   // one token, for its life
	events   uint32 // how many were joined; at zero the mark goes
}

func (m *mark) join(o mark) {
	m.denied, m.operator = max(m.denied, o.denied), max(m.operator, o.operator)
	m.doubted, m.asked = max(m.doubted, o.doubted), max(m.asked, o.asked)
	m.final = m.final || o.final
}

// part is what is left of m for an answer of which not every named claim is known: a question.
func (m *mark) part() mark { return mark{asked: max(m.asked, m.doubted)} }

// clamp forgets how far in the future of now m was applied, after a wall was set back.
func (m *mark) clamp(now int64) { m.doubted, m.asked = min(m.doubted, now), min(m.asked, now) }

// never is an iat that is not known.
const never = math.MinInt64

// void says what m means for a token issued at iat. Servers count whole seconds and several of them disagree, so
// within sigma of a deny nobody can say which came first: such a token is asked about again. An operator's deny is
// refused instead, for its server may not know of it. Where a session is named, a token of it that was issued later is
// asked about too.
func (m *mark) void(iat, sigma int64, session bool) (revoked bool, questioned int64) {
	if m.final {
		return true, 0
	}
	questioned = m.asked
	if m.operator != 0 && (iat == never || iat <= m.operator+sigma) {
		return true, 0
	}
	if m.denied != 0 && iat != never && iat < m.denied-sigma {
		return true, 0
	}
	if m.doubted != 0 && (iat == never || session || m.denied != 0 && iat <= m.denied+sigma) {
		questioned = max(questioned, m.doubted)
	}
	return false, questioned
}

// far bounds instants, so that adding a few years to one does not wrap around.
const far = math.MaxInt64 / 2

// nanos is t in wall nanoseconds since 1970. Instants before and far beyond are the nearest that count, and never 0,
// which stands for none.
func nanos(t time.Time) int64 {
	switch s := t.Unix(); {
	case s >= far/int64(time.Second):
		return far
	case s < 0:
		return 1
	}
	return max(1, t.UnixNano())
}

func instant(nanos int64) time.Time { return time.Unix(0, nanos) }
