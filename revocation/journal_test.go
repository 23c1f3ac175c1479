package revocation_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

var theMain = []revocation.Issuer{{Name: "main", Settle: 5 * time.Second, Skew: 2 * time.Second}}

// A restart forgets nothing: not what was revoked, not when the log began.
//
// Covers: SIG-20 CAC-08
func TestSIG20RestartForgetsNothing(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	l := ledger(t, revocation.Config{Issuers: theMain, Folder: folder})
	before, after := answer(t, time.Now().Add(-time.Hour), ""), answer(t, time.Now().Add(time.Hour), "")
	apply(t, l, revocation.Event{Token: l.TokenID("main", "opaque-token")}, revocation.Event{JTI: "j", Operator: true}, revocation.Event{WholeIssuer: true, Effect: revocation.Revalidate},
		revocation.Event{Selector: revocation.Selector{Subject: "ann"}, Operator: true, Who: "ops", Why: "stolen"})
	look := func(l *revocation.Ledger) (got string) {
		for token, a := range map[string]*watchword.Answer{"opaque-token": after, "other": answer(t, time.Now().Add(time.Hour), `,"jti":"j"`)} {
			got += token + "=" + verdict(l, token, a) + " "
			if verdict(l, token, a) != "revoked" {
				t.Error(token, verdict(l, token, a))
			}
		}
		return got + verdict(l, "t", before) + " " + verdict(l, "t", after) + " " + verdict(l, "t", answer(t, time.Now().Add(time.Hour), `,"sub":"ann","iat":5`))
	}
	look(l)
	id := l.TokenID("main", "opaque-token")
	for range 3 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = ledger(t, revocation.Config{Issuers: theMain, Folder: folder})
		look(l)
		if got := verdict(l, "t", before) + verdict(l, "t", after) + verdict(l, "t", answer(t, time.Now().Add(time.Hour), `,"sub":"ann","iat":5`)); got != "askedlaterevoked" {
			t.Error(got)
		}
		if l.TokenID("main", "opaque-token") != id || l.Stats().Events != 4 {
			t.Error(l.Stats())
		}
		// Asked after the first beginning: the restart questions nothing that is younger.
		if v := l.Voids(watchword.Query{Issuer: "main", Token: "t"}, answer(t, time.Now(), "")); watchword.Age(v.Questioned, time.Now()) >= 0 {
			t.Error("a restart questions everything")
		}
	}
	body, err := os.ReadFile(filepath.Join(folder, "log"))
	if err != nil || bytes.Contains(body, []byte("opaque-token")) {
		t.Error("a token is in the log", err)
	}
	if _, err := revocation.New(revocation.Config{Issuers: theMain, Folder: folder}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Error("two share a folder:", err)
	}
}

// Killed at any byte of any write, nothing that was acknowledged is lost; what is torn is cut off, and the log grows on.
func TestKilledAtAnyByte(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	l := ledger(t, revocation.Config{Issuers: theMain, Folder: folder})
	var acknowledged []int64 // size of the log when the i-th event was
	for i := range 12 {
		apply(t, l, revocation.Event{ID: fmt.Sprint(i), Selector: revocation.Selector{Subject: fmt.Sprint("s", i)}, Operator: true})
		acknowledged = append(acknowledged, l.Stats().LogBytes)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(folder, "log"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(folder, "key"))
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n <= len(whole); n += 1 + n/200 { // the disk has other things to do
		cut := t.TempDir()
		for name, body := range map[string][]byte{"log": whole[:n], "key": key} {
			if err := os.WriteFile(filepath.Join(cut, name), body, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want := 0
		for want < len(acknowledged) && acknowledged[want] <= int64(n) {
			want++
		}
		for again := range 2 { // and once more after it was mended
			l, err := revocation.New(revocation.Config{Issuers: theMain, Folder: cut})
			if err != nil {
				t.Fatalf("cut at %d of %d: %v", n, len(whole), err)
			}
			for i := range want {
				if got := verdict(l, "t", answer(t, time.Now(), fmt.Sprintf(`,"sub":"s%d","iat":5`, i))); got != "revoked" {
					t.Fatalf("cut at %d: event %d is lost", n, i)
				}
			}
			if got := l.Stats().Events; got != want+again {
				t.Fatalf("cut at %d: %d events, want %d", n, got, want+again)
			}
			apply(t, l, revocation.Event{ID: "more", Selector: revocation.Selector{Subject: "s"}, Operator: true})
			_ = l.Close()
		}
	}
}

// A log that is damaged in its middle is an error that names the file, the place and the way out; nothing is guessed.
func TestDamagedMiddle(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	l := ledger(t, revocation.Config{Issuers: theMain, Folder: folder})
	for i := range 3 {
		apply(t, l, revocation.Event{ID: fmt.Sprint(i), Selector: revocation.Selector{Subject: "ann"}})
	}
	_ = l.Close()
	path := filepath.Join(folder, "log")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.LastIndex(whole, []byte("WWL1"))
	for n := 0; n < last; n += 3 {
		bad := bytes.Clone(whole)
		bad[n] ^= 0x10
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		//lint:ignore SA4006 it is closed below
		if l, err := revocation.New(revocation.Config{Issuers: theMain, Folder: folder}); err == nil || !strings.Contains(err.Error(), path) {
			t.Fatalf("byte %d flipped: %v", n, err)
			_ = l.Close()
		}
	}
}

// Another key cannot find the tokens of this log, so it is refused; beside the old one it can.
func TestLedgerKeyOrphansNothing(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	l := ledger(t, revocation.Config{Issuers: theMain, Folder: folder, Key: revocation.Key{1}})
	apply(t, l, revocation.Event{Token: l.TokenID("main", "t")}, revocation.Event{JTI: "j"})
	_ = l.Close()
	if _, err := revocation.New(revocation.Config{Issuers: theMain, Folder: folder, Key: revocation.Key{2}}); err == nil || !strings.Contains(err.Error(), "another ledger key") {
		t.Error(err)
	}
	for range 2 {
		l = ledger(t, revocation.Config{Issuers: theMain, Folder: folder, Key: revocation.Key{2}, Previous: []revocation.Key{{1}}})
		if a := answer(t, time.Now(), ""); verdict(l, "t", a) != "revoked" || verdict(l, "u", answer(t, time.Now(), `,"jti":"j"`)) != "revoked" {
			t.Error("a token event is orphaned")
		}
		_ = l.Close()
	}
}

// Of many who apply at once each event outlives the process, and what was closed acknowledges nothing.
func TestManyApplyAtOnce(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	l := ledger(t, revocation.Config{Issuers: theMain, Folder: folder})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 40 {
				e := revocation.Event{Issuer: "main", ID: fmt.Sprint(g, "-", i), Selector: revocation.Selector{Subject: fmt.Sprint(g, "-", i)}, Operator: true, Why: strings.Repeat("y", 900)}
				if err := l.Apply(t.Context(), e); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	_ = l.Close()
	if err := l.Apply(t.Context(), revocation.Event{Issuer: "main", WholeIssuer: true}); err == nil {
		t.Error("a closed ledger acknowledges")
	}
	l = ledger(t, revocation.Config{Issuers: theMain, Folder: folder})
	if got := l.Stats().Events; got != 320 {
		t.Errorf("%d events, want 320", got)
	}
}

// What is full forgets the oldest and asks about everything from before; what operators deny is never forgotten.
func TestBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		forgot := 0
		l := ledger(t, revocation.Config{Issuers: theMain, MaxBytes: 1 << 16, OnForget: func(_ string, n int, _ time.Time) { forgot += n }})
		operator := revocation.Event{ID: "op", Selector: revocation.Selector{Subject: "operated"}, Operator: true}
		apply(t, l, operator)
		time.Sleep(time.Minute)
		young := answer(t, time.Now(), "")
		for i := range 2000 {
			time.Sleep(time.Second)
			apply(t, l, revocation.Event{ID: fmt.Sprint(i), Selector: revocation.Selector{Subject: fmt.Sprint("s", i)}})
			if s := l.Stats(); s.Bytes > 1<<16 {
				t.Fatal(s)
			}
			voided := answer(t, time.Now().Add(-time.Second/2), fmt.Sprintf(`,"sub":"s%d"`, i))
			if verdict(l, "t", voided) == "stands" {
				t.Fatal("a revoked answer stands")
			}
			if verdict(l, "t", answer(t, time.Now().Add(1), `,"sub":"innocent"`)) != "stands" {
				t.Fatal("an innocent token asked about just now does not stand")
			}
		}
		if got := verdict(l, "t", young); forgot < 1000 || got != "asked" {
			t.Errorf("%d forgotten; what was asked before them: %s", forgot, got)
		}
		if got := verdict(l, "t", answer(t, time.Now(), `,"sub":"operated","iat":5`)); got != "revoked" {
			t.Error("an operator's deny was forgotten:", got)
		}
		var err error
		for i := 0; err == nil && i < 1000; i++ {
			operator.ID, operator.Issuer = fmt.Sprint("op", i), "main"
			err = l.Apply(t.Context(), operator)
		}
		if s := l.Stats(); !errors.Is(err, revocation.ErrFull) || s.OperatorBytes > 1<<14 || s.OperatorBytes < 1<<13 {
			t.Errorf("%v, %+v", err, s)
		}
	})
}

// What is over is dropped, and takes its question along into Forgotten: no longer bound brings it back.
func TestOverIsDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := ledger(t, revocation.Config{Issuers: []revocation.Issuer{{Name: "main", Settle: 5 * time.Second, Remember: time.Minute, MaxTokenLife: time.Hour}}})
		time.Sleep(time.Second)
		old := answer(t, time.Now(), `,"sub":"ann"`)
		time.Sleep(time.Second)
		apply(t, l, revocation.Event{Selector: revocation.Selector{Subject: "ann"}, Effect: revocation.Revalidate}, revocation.Event{Selector: revocation.Selector{Subject: "bob"}})
		go func() { _ = l.Run(t.Context()) }()
		time.Sleep(67 * time.Second)
		synctest.Wait()
		if got := l.Stats().Events; got != 1 {
			t.Errorf("%d events, want the deny", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := l.Stats().Events; got != 0 || verdict(l, "t", old) != "asked" {
			t.Errorf("%d events; evidence from before them: %s", got, verdict(l, "t", old))
		}
	})
}

// A deny is held for as long as anybody accepts the token, which is past its end where the issuer has a leeway, and as
// long as a reload says that tokens live.
//
// Covers: SIG-18 SIG-20
func TestDeniesOutliveTheirTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		is := revocation.Issuer{Name: "main", Skew: 2 * time.Second, MaxTokenLife: time.Hour, Leeway: time.Minute}
		l := ledger(t, revocation.Config{Issuers: []revocation.Issuer{is}})
		go func() { _ = l.Run(t.Context()) }()
		at := time.Now()
		apply(t, l, revocation.Event{Selector: revocation.Selector{Subject: "ann"}, At: at, Operator: true}, revocation.Event{Token: revocation.TokenID{1}, Expires: at.Add(30 * time.Minute)})
		held := func(after time.Duration, want int) {
			t.Helper()
			time.Sleep(time.Until(at.Add(after)))
			synctest.Wait()
			if got := l.Stats().Events; got != want {
				t.Errorf("%v after: %d are held, want %d", after, got, want)
			}
		}
		held(31*time.Minute, 2)
		held(31*time.Minute+5*time.Second, 1)
		held(61*time.Minute, 1)
		is.MaxTokenLife = 2 * time.Hour
		if err := l.Reconfigure(is); err != nil {
			t.Fatal(err)
		}
		held(121*time.Minute, 1)
		held(121*time.Minute+5*time.Second, 0)
	})
}
