package revocation

import (
	"encoding/binary"
	"hash/maphash"
	"maps"
	"slices"
	"sync"

	"github.com/watchword-dev/watchword"
)

// names is a set of the claims that selectors of one issuer may name: a bit each.
type names uint8

const (
	subject names = 1 << iota
	client
	session
	tenant
	firstOther
)

const maxNames = 8 // bits of names

// claimsOf knows which claim of an answer is meant by which bit.
type claimsOf struct {
	claim [maxNames]string // of tenant and the declared ones; empty: not declared
	bit   map[string]names // of the declared ones, by their declared name
}

func newClaimsOf(selectors map[string]string) claimsOf {
	c := claimsOf{bit: map[string]names{}}
	next := firstOther
	for _, name := range slices.Sorted(maps.Keys(selectors)) {
		if name == "tenant" {
			c.claim[tenant.place()] = selectors[name]
			continue
		}
		c.bit[name], c.claim[next.place()] = next, selectors[name]
		next <<= 1
	}
	return c
}

func (n names) place() (i int) {
	for ; n > 1; n >>= 1 {
		i++
	}
	return i
}

// values are what an event or an answer has for each name.
type values [maxNames]string

// named reads a selector. Not whole: it names something that cannot be evaluated here, which matches everything.
func (c *claimsOf) named(s *Selector) (v values, shape names, whole bool) {
	whole = true
	set := func(n names, value string) {
		if value != "" {
			v[n.place()], shape = value, shape|n
		}
	}
	set(subject, s.Subject)
	set(client, s.Client)
	set(session, s.Session)
	if c.claim[tenant.place()] != "" {
		set(tenant, s.Tenant)
	} else if s.Tenant != "" {
		whole = false
	}
	for name, value := range s.Other {
		if n := c.bit[name]; n != 0 {
			set(n, value)
		} else {
			whole = false
		}
	}
	return v, shape, whole
}

// of reads the wanted names of an answer: which it has, and which are there but no plain value, so that they may equal
// anything.
func (c *claimsOf) of(a *watchword.Answer, want names, v *values) (has, wild names) {
	set := func(n names, value string) {
		if value != "" {
			v[n.place()], has = value, has|n
		}
	}
	if want&subject != 0 {
		set(subject, a.Subject())
	}
	if want&client != 0 {
		set(client, a.ClientID())
	}
	if want&session != 0 {
		set(session, a.Session())
	}
	if want < tenant {
		return has, 0
	}
	for name, value := range a.Claims().All() {
		for i := tenant.place(); i < maxNames; i++ {
			if c.claim[i] != name {
				continue
			}
			switch value[0] {
			case '"':
				text, _ := a.Claims().Text(name)
				set(1<<i, text)
			case '{', '[':
				wild |= 1 << i
			case 'n': // null: absent
			default:
				set(1<<i, value)
			}
		}
	}
	return has, wild
}

// place is where a mark is found: a digest under random keys that nobody outside can aim at.
type place [2]uint64

const shards = 64

// index finds marks by what they select. Safe for one writer and many readers.
type index struct {
	seeds  [2]maphash.Seed
	shards [shards]struct {
		sync.RWMutex
		marks map[place]mark
	}
}

func newIndex() *index {
	x := &index{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	for i := range x.shards {
		x.shards[i].marks = map[place]mark{}
	}
	return x
}

// at is the place of the events of one shape whose values of the known names are v.
func (x *index) at(shape, known names, v *values) (p place) {
	var room [256]byte // what is longer costs an allocation
	b := append(room[:0], byte(shape), byte(known))
	for n := range maxNames {
		if known&(1<<n) != 0 {
			b = append(binary.AppendUvarint(b, uint64(len(v[n]))), v[n]...)
		}
	}
	for i, seed := range x.seeds {
		p[i] = maphash.Bytes(seed, b)
	}
	return p
}

func ofToken(id *TokenID) place {
	return place{binary.LittleEndian.Uint64(id[:]), binary.LittleEndian.Uint64(id[8:])}
}

func (x *index) get(p place) (m mark, ok bool) {
	s := &x.shards[p[0]%shards]
	s.RLock()
	m, ok = s.marks[p]
	s.RUnlock()
	return m, ok
}

// add joins m, or takes one event away; what was joined stays until the last one goes.
func (x *index) add(p place, m mark) {
	s := &x.shards[p[0]%shards]
	s.Lock()
	defer s.Unlock()
	have := s.marks[p]
	have.join(m)
	have.events++
	s.marks[p] = have
}

func (x *index) remove(p place) {
	s := &x.shards[p[0]%shards]
	s.Lock()
	defer s.Unlock()
	have, ok := s.marks[p]
	if have.events--; ok && have.events > 0 {
		s.marks[p] = have
	} else {
		delete(s.marks, p)
	}
}

// clamp forgets how far in the future of now any mark was applied.
func (x *index) clamp(now int64) {
	for i := range x.shards {
		s := &x.shards[i]
		s.Lock()
		for p, m := range s.marks {
			m.clamp(now)
			s.marks[p] = m
		}
		s.Unlock()
	}
}

// places calls each with every place where an event of that shape is looked for: once with all its values, and once
// for every part of them that an answer may have.
func (x *index) places(shape names, v *values, each func(p place, all bool)) {
	for part := shape; ; part = (part - 1) & shape {
		each(x.at(shape, part, v), part == shape)
		if part == 0 {
			return
		}
	}
}

// parts is how many places an event of that shape takes.
func (n names) parts() int {
	count := 1
	for ; n > 0; n &= n - 1 {
		count *= 2
	}
	return count
}
