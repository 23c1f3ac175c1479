package interop

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// post sends a form as a client. Status 0: no answer.
func (f *fleet) post(at, client, secret string, form url.Values) (int, []byte) {
	r, err := http.NewRequest(http.MethodPost, at, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(client, secret)
	return f.send(r)
}

func (f *fleet) send(r *http.Request) (int, []byte) {
	answer, err := f.client.Do(r)
	if err != nil {
		return 0, nil
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<16))
	if err != nil {
		return 0, nil
	}
	return answer.StatusCode, body
}

// operate is an operator's word at a node.
func (f *fleet) operate(n *fleetNode, what map[string]string) int {
	body, err := json.Marshal(what)
	if err != nil {
		return 0
	}
	r, err := http.NewRequest(http.MethodPost, "http://"+n.admin+"/v1/revocations", strings.NewReader(string(body)))
	if err != nil {
		return 0
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer operator-of-the-test")
	status, _ := f.send(r)
	return status
}

// sender revokes one token after another, each in a way and through a node of its choice, and asks every node about it
// until each refuses.
func (f *fleet) sender(r *rand.Rand, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(100*time.Millisecond + time.Duration(r.Int64N(int64(200*time.Millisecond)))):
		}
		way := []string{"pass", "pass", "pass", "token", "token", "token", "token", "sub", "client", "server", "revalidate"}[r.IntN(11)]
		g, group := f.take(r, way == "sub" || way == "client")
		var all sync.WaitGroup
		for _, n := range f.nodes {
			all.Go(func() { f.check(n, g.token) }) // so that it is remembered everywhere
		}
		all.Wait()
		n := f.nodes[r.IntN(3)]
		switch way {
		case "server": // nobody tells us
			f.as.revoke(g.token, "c-"+g.group)
		case "revalidate": // is no revocation: what is valid is refused by nobody
			f.operate(n, map[string]string{"issuer": "main", "sub": "u-" + g.group, "effect": "revalidate", "why": "a test"})
			f.give(g)
			continue
		default:
			f.revoke(r, n, way, g)
		}
		for _, one := range group {
			f.watch(one.token)
		}
		f.mu.Lock()
		for _, one := range group {
			f.ended = append(f.ended, one.token)
		}
		f.next++
		next := fmt.Sprint("more-", f.next)
		f.mu.Unlock()
		switch way {
		case "sub", "client":
			f.newGroup(next)
			time.AfterFunc(doubt+time.Second, func() { f.give(f.as.issue(g.group)) }) // who logs in again is not meant
		default:
			f.give(f.as.issue(next))
		}
	}
}

// watch asks every node about a token until each refuses it, or is gone.
func (f *fleet) watch(token string) {
	for _, n := range f.nodes {
		f.watching.Go(func() {
			pause := 2 * time.Millisecond
			for began := time.Now(); f.check(n, token) != refused && time.Since(began) < patience; pause = min(pause*5/4, 40*time.Millisecond) {
				time.Sleep(pause)
			}
		})
	}
}

// take chooses a valid token, and with it the others of its group if they are meant too: nobody else revokes them.
func (f *fleet) take(r *rand.Rand, whole bool) (g grant, group []grant) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g = f.valid[r.IntN(len(f.valid))]
	kept := f.valid[:0:0]
	for _, one := range f.valid {
		if one.token == g.token || whole && one.group == g.group {
			group = append(group, one)
		} else {
			kept = append(kept, one)
		}
	}
	f.valid = kept
	return g, group
}

func (f *fleet) give(g grant) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.valid = append(f.valid, g)
}

// revoke sends a revocation until it is acknowledged, after a failure perhaps to another node.
func (f *fleet) revoke(r *rand.Rand, n *fleetNode, way string, g grant) {
	e := &revoked{way: way, token: g.token, operator: way != "pass"}
	if way == "sub" || way == "client" {
		e.token, e.group = "", g.group
	}
	for began := time.Now(); time.Since(began) < patience; time.Sleep(50 * time.Millisecond) {
		a := attempt{node: n.index, life: n.alive(), began: time.Now(), ended: time.Now()}
		f.h.mu.Lock() // before it is sent: what it does may be seen before it is answered
		if e.attempts = append(e.attempts, a); len(e.attempts) == 1 {
			f.h.revoked = append(f.h.revoked, e)
		}
		f.h.mu.Unlock()
		status := 0
		switch way {
		case "pass":
			status, _ = f.post("http://"+n.events+"/revoke", "c-"+g.group, "secret-of-a-client", url.Values{"token": {g.token}})
		case "token":
			status = f.operate(n, map[string]string{"issuer": "main", "token": g.token, "why": "a test"})
		default:
			status = f.operate(n, map[string]string{"issuer": "main", way: map[string]string{"sub": "u-", "client": "c-"}[way] + g.group, "why": "a test"})
		}
		f.h.mu.Lock()
		last := &e.attempts[len(e.attempts)-1]
		last.ended = time.Now()
		if last.life != n.alive() {
			last.life = -1
		}
		last.acknowledged = status == http.StatusOK
		last.taken = status == http.StatusOK || status == http.StatusServiceUnavailable
		f.h.mu.Unlock()
		if status == http.StatusOK {
			return
		}
		if r.IntN(2) == 0 {
			n = f.nodes[r.IntN(3)]
		}
	}
}

// settle waits until every node refuses what another one is told now: then it has read everything before.
func (f *fleet) settle(t *testing.T) {
	t.Helper()
	for i, n := range f.nodes {
		g := f.as.issue(fmt.Sprint("mark-", n.link.address))
		f.revoke(rand.New(rand.NewPCG(1, uint64(i))), f.nodes[(i+1)%3], "token", g)
		for _, n := range f.nodes {
			await(t, "a node to hear of the last revocation", patience, func() error {
				if said := f.check(n, g.token); said != refused {
					return fmt.Errorf("node %d: %s", n.index, said)
				}
				return nil
			})
		}
	}
}

// sweep asks every node about every token, now that everything is whole: each has its answer.
func (f *fleet) sweep(t *testing.T, when string) {
	t.Helper()
	f.settle(t)
	var all sync.WaitGroup
	for _, n := range f.nodes {
		all.Go(func() {
			for token := range f.as.truth() {
				if said := f.check(n, token); said != allowed && said != refused {
					t.Errorf("%s, node %d says of a token: %s", when, n.index, said)
				}
			}
		})
	}
	all.Wait()
}
