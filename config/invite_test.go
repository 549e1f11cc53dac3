package config

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func ownKey(b byte) ed25519.PublicKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32)).Public().(ed25519.PublicKey)
}

// A link for one use lets one key in, and says to all others that it was used.
func TestEnrol(t *testing.T) {
	d := newServer(t)
	l, err := d.InviteOnce("laptop", noon, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseLink(l.String(), noon)
	if err != nil || !again.Once || !strings.HasPrefix(l.String(), "godwit://v2/") {
		t.Fatalf("%v, %v", again, err)
	}
	text, err := os.ReadFile(d.recordPath("laptop"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("public_key")) || strings.Contains(string(text), "joined") {
		t.Errorf("the record before use:\n%s", text)
	}
	// The link's key itself is no client's.
	if _, err := d.LookupClient(publicKey(l), noon); !errors.Is(err, ErrUnknownClient) {
		t.Errorf("the link's own key: %v", err)
	}
	good := again.Enrolment(ownKey(1))
	for name, enrolment := range map[string][]byte{
		"nothing": nil, "cut": good[:95], "longer": append(bytes.Clone(good), 0),
		"another's": again.Enrolment(ownKey(2)),
		"by nobody": append(bytes.Clone(ownKey(3)), good[32:]...),
		"another server's": func() []byte {
			o := *again
			o.ServerKey = ownKey(4)
			return o.Enrolment(ownKey(1))
		}(),
		"no invitation of here": exampleLink().Enrolment(ownKey(1)),
	} {
		if _, err := d.Enrol(ownKey(1), enrolment, noon); !errors.Is(err, ErrUnknownClient) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r, err := d.Enrol(ownKey(1), good, noon)
	if err != nil || r.Name != "laptop" || !bytes.Equal(r.PublicKey, ownKey(1)) {
		t.Fatalf("%+v, %v", r, err)
	}
	// For this process, and for the next one.
	for _, d := range []*ServerDir{d, reload(t, d)} {
		if r, err := d.LookupClient(ownKey(1), noon.Add(24*time.Hour)); err != nil || !r.Joined || r.Name != "laptop" {
			t.Errorf("enrolled: %+v, %v", r, err)
		}
		if _, err := d.Enrol(ownKey(2), again.Enrolment(ownKey(2)), noon); !errors.Is(err, ErrUsed) {
			t.Errorf("used by another: %v", err)
		}
		// An answer may be lost.
		if r, err := d.Enrol(ownKey(1), good, noon); err != nil || r.Name != "laptop" {
			t.Errorf("used by the same again: %v, %v", r, err)
		}
		if err := d.MarkJoined("laptop"); err != nil {
			t.Error(err)
		}
	}
	if err := d.Remove("laptop"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Enrol(ownKey(2), again.Enrolment(ownKey(2)), noon); !errors.Is(err, ErrUnknownClient) {
		t.Errorf("withdrawn: %v", err)
	}
}

func reload(t *testing.T, d *ServerDir) *ServerDir {
	t.Helper()
	next, err := LoadServer(d.Path())
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func TestEnrolTooLate(t *testing.T) {
	d := newServer(t)
	l, err := d.InviteOnce("laptop", noon, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Enrol(ownKey(1), l.Enrolment(ownKey(1)), noon.Add(time.Hour)); !errors.Is(err, ErrExpired) {
		t.Errorf("got %v", err)
	}
	if _, err := d.Enrol(ownKey(1), l.Enrolment(ownKey(1)), noon.Add(time.Hour-1)); err != nil {
		t.Errorf("at the last moment: %v", err)
	}
}

// Of many that use a link at once, in two processes, one gets in.
func TestEnrolRace(t *testing.T) {
	d := newServer(t)
	l, err := d.InviteOnce("laptop", noon, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	other := reload(t, d)
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			own := ownKey(byte(i))
			switch _, err := []*ServerDir{d, other}[i%2].Enrol(own, l.Enrolment(own), noon); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, ErrUsed):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d got in", won.Load())
	}
}

// A client with a link for one use has a key that was in no link.
func TestJoinOnce(t *testing.T) {
	s := newServer(t)
	l, err := s.InviteOnce("laptop", noon, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c, err := JoinClient(dir, l)
	if err != nil {
		t.Fatal(err)
	}
	own := c.Key.Public().(ed25519.PublicKey)
	if own.Equal(l.PrivateKey().Public()) {
		t.Error("it took the link's key")
	}
	if r, err := s.Enrol(own, c.Config.Enrolment, noon); err != nil || r.Name != "laptop" {
		t.Errorf("%+v, %v", r, err)
	}
	if err := c.Leave(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
