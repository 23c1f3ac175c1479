package watchword_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-dev/watchword"
)

// A reload replaces everything or nothing.
func TestReconfigureKeepsTheOldOnError(t *testing.T) {
	t.Parallel()
	old, young := says(`{"active":true,"sub":"old"}`), says(`{"active":true,"sub":"young"}`)
	config := func(src watchword.Source, asking string) watchword.Config {
		return watchword.Config{Source: src, Issuers: []watchword.Issuer{{Name: "main", Asking: asking}}, Routes: []watchword.Route{{Policy: watchword.Policy{Name: "p"}}}}
	}
	v := verifier(t, config(old, "1"))
	subject := func() (string, watchword.Key) {
		t.Helper()
		d := v.Verify(t.Context(), watchword.Request{Token: "t"})
		if d.Answer == nil {
			t.Fatal(d.Reason, d.Err)
		}
		return d.Answer.Subject(), d.Key
	}
	who, first := subject()
	broken := config(young, "2")
	broken.Routes = append(broken.Routes, watchword.Route{Policy: watchword.Policy{Name: "q", Issuers: []string{"nobody"}}})
	if err := v.Reconfigure(broken); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Error(err)
	}
	if again, key := subject(); again != who || key != first || who != "old" {
		t.Errorf("%s after a reload that failed", again)
	}
	if err := v.Reconfigure(config(young, "1")); err != nil {
		t.Fatal(err)
	}
	if who, key := subject(); who != "young" || key != first {
		t.Errorf("%s: the same question must keep its key, or a reload is a cold start", who)
	}
	if err := v.Reconfigure(config(young, "2")); err != nil {
		t.Fatal(err)
	}
	if _, key := subject(); key == first {
		t.Error("T3: another asking is another entry")
	}
}

// T3, abuse 9 and 10, CAC-06: whatever may change the answer is in the key, and no two things run into one another.
func TestT3_CAC06Keys(t *testing.T) {
	t.Parallel()
	seen := map[watchword.Key]string{}
	pepper := watchword.Pepper{1}
	key := func(p watchword.Pepper, name, asking string, c *watchword.Credential, token watchword.Token) watchword.Key {
		t.Helper()
		v := verifier(t, watchword.Config{Pepper: p, Source: says(`{"active":true}`), Issuers: []watchword.Issuer{{Name: name, Asking: asking}}, Routes: []watchword.Route{{Policy: watchword.Policy{Name: "p"}}}})
		d := v.Verify(t.Context(), watchword.Request{Token: token, Credential: c})
		if d.Key == (watchword.Key{}) || strings.Contains(string(d.Key[:]), string(token)) && len(token) > 3 {
			t.Fatal(d)
		}
		return d.Key
	}
	differs := func(what string, k watchword.Key) {
		t.Helper()
		if other, taken := seen[k]; taken {
			t.Errorf("%s has the key of %s", what, other)
		}
		seen[k] = what
	}
	long := strings.Repeat("x", 500)
	for _, token := range []watchword.Token{"t", "tt", "T", "a", "b", watchword.Token(long), watchword.Token(long + "x")} {
		for _, i := range [][2]string{{"a", ""}, {"b", ""}, {"ab", "c"}, {"a", "bc"}, {"abc", ""}, {"a", "b"}, {"a", "b\x00"}} {
			differs(fmt.Sprintf("%q at %q", string(token), i), key(pepper, i[0], i[1], nil, token))
		}
	}
	for i, c := range []watchword.Credential{{}, {Authorization: "a"}, {Authorization: "ab"}, {Hint: "a"}, {Authorization: "a", Hint: "b"}, {Authorization: "b", Hint: "a"},
		{Parameters: [][2]string{{"a", "b"}}}, {Parameters: [][2]string{{"ab", ""}}}, {Parameters: [][2]string{{"", "ab"}}}, {Parameters: [][2]string{{"a", ""}, {"b", ""}}}, {Parameters: [][2]string{{"b", ""}, {"a", ""}}},
		{Parameters: [][2]string{{"", ""}}}, {Parameters: [][2]string{{"", ""}, {"", ""}}}, {Authorization: "a", Parameters: [][2]string{{"b", "c"}}}, {Hint: "b", Parameters: [][2]string{{"a", "c"}}}} {
		differs(fmt.Sprintf("credential %d", i), key(pepper, "a", "", &c, "t"))
		same := c
		same.Parameters = slices.Clone(c.Parameters)
		if key(pepper, "a", "", &same, "t") != key(pepper, "a", "", &c, "t") {
			t.Errorf("credential %d: equal credentials have one key", i)
		}
	}
	differs("another pepper", key(watchword.Pepper{2}, "a", "", nil, "t"))
	differs("a random pepper", key(watchword.Pepper{}, "a", "", nil, "t"))
	differs("another random pepper", key(watchword.Pepper{}, "a", "", nil, "t"))
	if one, same := key(pepper, "a", "", nil, "t"), key(pepper, "a", "", nil, "t"); one != same {
		t.Error("one question has one key")
	}
}

// Keys names what a decision was remembered under.
func TestKeysAreThoseOfDecisions(t *testing.T) {
	t.Parallel()
	v, err := watchword.New(watchword.Config{
		Source:  watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) { return nil, watchword.Unavailable }),
		Issuers: []watchword.Issuer{{Name: "a", Prefixes: []string{"a_"}}, {Name: "b"}},
		Routes:  []watchword.Route{{}},
	})
	check(err)
	for token, issuer := range map[watchword.Token]string{"a_1": "a", "x": "b"} {
		d, keys := v.Verify(t.Context(), watchword.Request{Token: token}), v.Keys(token)
		if len(keys) != 2 || keys[issuer] != d.Key || keys["a"] == keys["b"] {
			t.Errorf("%s: a decision of issuer %q has another key", issuer, d.Issuer)
		}
	}
}
