package authority

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"
	_ "modernc.org/sqlite" // the driver named "sqlite"
)

// format marks a file as ours in its user_version: "WW" and the version of the tables.
const format = 0x5757_0001

const tables = `
CREATE TABLE setting (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE access_token (digest BLOB PRIMARY KEY, ends INTEGER NOT NULL, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE login (digest BLOB PRIMARY KEY, ends INTEGER NOT NULL, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE approval (id TEXT PRIMARY KEY, code BLOB UNIQUE, refresh BLOB UNIQUE, ends INTEGER NOT NULL, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX access_token_ends ON access_token (ends);
CREATE INDEX login_ends ON login (ends);
CREATE INDEX approval_ends ON approval (ends);
`

// store keeps the provider's state in SQLite. A bearer value is a digest there, never itself.
type store struct {
	write    *sql.DB // one connection: SQLite has one writer, and queueing here beats SQLITE_BUSY
	read     *sql.DB // the same as write in memory, where a second connection would see another database
	lifetime int64   // of an access token, in seconds
	swept    atomic.Int64
}

// storeError is a failure of the store itself. It names an action and SQLite's words, never a value.
type storeError struct {
	doing string
	cause error
}

func (e storeError) Error() string { return "authority: " + e.doing + ": " + e.cause.Error() }
func (e storeError) Unwrap() error { return e.cause }

func failed(doing string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		return goidc.ErrNotFound
	}
	return storeError{doing, err}
}

func openStore(path string, lifetime time.Duration) (*store, error) {
	s := &store{lifetime: int64(lifetime / time.Second)}
	if path == "" {
		s.write, _ = sql.Open("sqlite", ":memory:") // Open only fails for an unknown driver
		s.write.SetMaxOpenConns(1)
		s.read = s.write
	} else {
		absolute, err := filepath.Abs(path)
		if err != nil {
			return nil, fmt.Errorf("store %q: %w", path, err)
		}
		// SQLite would create it readable for everybody; it holds a private key.
		file, err := os.OpenFile(absolute, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		if err := file.Close(); err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		dsn := (&url.URL{Scheme: "file", Path: filepath.ToSlash(absolute)}).String()
		s.write, _ = sql.Open("sqlite", dsn+"?_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)")
		s.write.SetMaxOpenConns(1)
		s.read, _ = sql.Open("sqlite", dsn+"?_pragma=busy_timeout(5000)&_pragma=query_only(1)")
		s.read.SetMaxOpenConns(4)
	}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("store %q: %w", path, err), s.close())
	}
	return s, nil
}

// prepare creates the tables in an empty file and refuses a file that is something else.
func (s *store) prepare() error {
	tx, err := s.write.Begin()
	if err != nil {
		return fmt.Errorf("%w (it must be an authority's own SQLite file, or not exist yet)", err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	var version, objects int
	if err := tx.QueryRow(`SELECT (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)`).Scan(&version, &objects); err != nil {
		return err
	}
	switch {
	case version == format:
		return nil
	case version != 0 || objects != 0:
		return errors.New("this is another program's or another version's database: name a new file")
	}
	if _, err := tx.Exec(tables + fmt.Sprintf("PRAGMA user_version = %d", format)); err != nil {
		return err
	}
	return tx.Commit()
}

func (s *store) close() error {
	if s.read == s.write {
		return s.write.Close()
	}
	return errors.Join(s.read.Close(), s.write.Close())
}

// settle stores value under name unless there is one, and returns the one there is.
func (s *store) settle(name string, value []byte) ([]byte, error) {
	err := s.write.QueryRow(`INSERT INTO setting (name, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value RETURNING value`, name, value).Scan(&value)
	return value, failed("keep the "+strings.ReplaceAll(name, "_", " "), err)
}

// get decodes the body that query finds. It runs to its end even where the asker has gone: it takes microseconds, and
// an interrupted connection would take an in-memory database with it.
func get[T any](ctx context.Context, s *store, doing, query string, value any) (*T, error) {
	var body []byte
	if err := s.read.QueryRowContext(context.WithoutCancel(ctx), query, value).Scan(&body); err != nil {
		return nil, failed(doing, err)
	}
	found := new(T)
	if err := json.Unmarshal(body, found); err != nil {
		return nil, storeError{doing, errors.New("unreadable row")}
	}
	return found, nil
}

func (s *store) put(ctx context.Context, doing, statement string, body any, values ...any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return storeError{doing, err}
	}
	ctx = context.WithoutCancel(ctx)
	if _, err := s.write.ExecContext(ctx, statement, append(values, encoded)...); err != nil {
		return storeError{doing, err}
	}
	return s.sweep(ctx, time.Now().Unix())
}

// sweep forgets, at most once a minute, what has ended.
func (s *store) sweep(ctx context.Context, now int64) error {
	if last := s.swept.Load(); now-last < 60 || !s.swept.CompareAndSwap(last, now) {
		return nil
	}
	for _, table := range []string{"access_token", "approval", "login"} {
		if _, err := s.write.ExecContext(ctx, `DELETE FROM `+table+` WHERE ends <= ?`, now); err != nil {
			return storeError{"forget what has ended", err}
		}
	}
	return nil
}

// SaveToken implements the provider's OpaqueTokenManager.
func (s *store) SaveToken(ctx context.Context, t *goidc.Token) error {
	body := *t
	body.ID = ""
	return s.put(ctx, "save an access token",
		`INSERT INTO access_token (digest, ends, body) VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET ends = excluded.ends, body = excluded.body`,
		body, digest(t.ID), t.ExpiresAt)
}

// Token implements the provider's OpaqueTokenManager.
func (s *store) Token(ctx context.Context, value string) (*goidc.Token, error) {
	t, err := get[goidc.Token](ctx, s, "find an access token", `SELECT body FROM access_token WHERE digest = ?`, digest(value))
	if err == nil {
		t.ID = value
	}
	return t, err
}

// SaveGrant implements the provider's GrantManager. A grant that was read back has no bearer values (they are digests
// here), so an empty one keeps the digest that there is.
func (s *store) SaveGrant(ctx context.Context, g *goidc.Grant) error {
	body := *g
	body.AuthCode, body.RefreshToken = "", ""
	body.AuthParams = withoutTokens(g.AuthParams)
	// The last access token of a grant is issued before the code and the refresh token end.
	ends := int64(max(g.CreatedAt, g.AuthCodeExpiresAt, g.RefreshTokenExpiresAt)) + s.lifetime + 60
	return s.put(ctx, "save a grant",
		`INSERT INTO approval (id, code, refresh, ends, body) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET code = coalesce(excluded.code, code), refresh = coalesce(excluded.refresh, refresh), ends = excluded.ends, body = excluded.body`,
		body, g.ID, digestOrNil(g.AuthCode), digestOrNil(g.RefreshToken), ends)
}

// Grant implements the provider's GrantManager.
func (s *store) Grant(ctx context.Context, id string) (*goidc.Grant, error) {
	return get[goidc.Grant](ctx, s, "find a grant", `SELECT body FROM approval WHERE id = ?`, id)
}

// GrantByAuthCode implements the provider's AuthManager. The provider answers a code with the refresh token that it made
// together with the code; we kept only the digest of that one, so here it gets a fresh one, which it saves with the code
// marked as used.
func (s *store) GrantByAuthCode(ctx context.Context, code string) (*goidc.Grant, error) {
	g, err := get[goidc.Grant](ctx, s, "find a grant", `SELECT body FROM approval WHERE code = ?`, digest(code))
	if err == nil && g.RefreshTokenExpiresAt != 0 {
		g.RefreshToken = random(refreshPrefix)(ctx)
	}
	return g, err
}

// GrantByRefreshToken implements the provider's RefreshTokenManager.
func (s *store) GrantByRefreshToken(ctx context.Context, value string) (*goidc.Grant, error) {
	return get[goidc.Grant](ctx, s, "find a grant", `SELECT body FROM approval WHERE refresh = ?`, digest(value))
}

// SaveSession implements the provider's AuthManager. A login that is over is forgotten: its id opens nothing twice.
func (s *store) SaveSession(ctx context.Context, a *goidc.AuthnSession) error {
	ends := a.ExpiresAt
	if a.Status != goidc.StatusPending {
		ends = 0
	}
	body := *a
	body.ID = ""
	body.AuthorizationParameters = withoutTokens(a.AuthorizationParameters)
	return s.put(ctx, "save a login",
		`INSERT INTO login (digest, ends, body) VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET ends = excluded.ends, body = excluded.body`,
		body, digest(a.ID), ends)
}

// Session implements the provider's AuthManager.
func (s *store) Session(ctx context.Context, id string) (*goidc.AuthnSession, error) {
	a, err := get[goidc.AuthnSession](ctx, s, "find a login", `SELECT body FROM login WHERE digest = ? AND ends > 0`, digest(id))
	if err == nil {
		a.ID = id
	}
	return a, err
}

func withoutTokens(p goidc.AuthorizationParameters) goidc.AuthorizationParameters {
	p.IDTokenHint, p.LoginHintToken, p.RequestObject = "", "", ""
	return p
}

func digestOrNil(value string) any {
	if value == "" {
		return nil
	}
	return digest(value)
}
