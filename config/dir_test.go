package config

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func publicKey(l *Link) ed25519.PublicKey { return l.PrivateKey().Public().(ed25519.PublicKey) }

func invite(t *testing.T, d *ServerDir, name string) *Link {
	t.Helper()
	l, err := d.Invite(name, noon, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestFromInitToJoin(t *testing.T) {
	d := newServer(t)
	text := invite(t, d, "laptop").String()
	l, err := ParseLink(text, noon)
	if err != nil {
		t.Fatal(err)
	}
	c, err := JoinClient(filepath.Join(t.TempDir(), "client"), l)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Config.ServerKey.Equal(d.Key.Public()) {
		t.Error("the client pins another key than the server's")
	}
	if c.Config.CertHash != sha256.Sum256(d.Certificate.Certificate[0]) {
		t.Error("the client pins another certificate than the server's")
	}
	if c.Config.Server != d.Config.Endpoint || c.Config.WebSocketPath != d.Config.WebSocketPath || c.Config.Name != "laptop" {
		t.Errorf("the client has %+v, the server %+v", c.Config, d.Config)
	}
	r, err := d.LookupClient(c.Key.Public().(ed25519.PublicKey), noon)
	if err != nil {
		t.Fatal(err)
	}
	if r.Name != "laptop" || r.Joined || r.Inner4 != netip.MustParseAddr("10.143.0.2") || r.Inner6 != netip.MustParseAddr("fd2c:9f61:7e0b::2") {
		t.Errorf("the server knows %+v", r)
	}
	_, err = JoinClient(c.Path(), l)
	wantError(t, err, "joined a server already", "--dir")
	_, err = InitServer(d.Path(), exampleServer(), noon)
	wantError(t, err, "set up here already", "--dir")
}

// An interrupted init keeps the keys that it made.
func TestInitGoesOnWhereItStopped(t *testing.T) {
	d := newServer(t)
	if err := os.Remove(filepath.Join(d.Path(), serverFile)); err != nil {
		t.Fatal(err)
	}
	again, err := InitServer(d.Path(), exampleServer(), noon)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Key.Equal(d.Key) || again.CertHash() != d.CertHash() {
		t.Error("the keys have changed")
	}
}

func TestCertificate(t *testing.T) {
	for endpoint, host := range map[string]string{"vpn.example.org:443": "vpn.example.org", "192.0.2.1:443": "192.0.2.1", "[2001:db8::1]:443": "2001:db8::1"} {
		s := exampleServer()
		s.Endpoint = endpoint
		d, err := InitServer(t.TempDir(), s, noon)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(d.Certificate.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := c.VerifyHostname(host); err != nil {
			t.Error(err)
		}
		if c.NotBefore.After(noon.Add(-time.Hour)) || c.NotAfter.Before(noon.AddDate(10, 0, 0)) {
			t.Errorf("valid from %v to %v", c.NotBefore, c.NotAfter)
		}
		if text := strings.ToLower(c.Subject.String() + c.Issuer.String()); strings.Contains(text, "godwit") {
			t.Errorf("the certificate tells what it is for: %s", text)
		}
	}
}

func TestFilesAreForTheirOwner(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // has no such permissions
	}
	d := newServer(t)
	l := invite(t, d, "laptop")
	c, err := JoinClient(filepath.Join(t.TempDir(), "client"), l)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{
		filepath.Join(d.Path(), serverFile), filepath.Join(d.Path(), serverKey), filepath.Join(d.Path(), tlsKey),
		d.recordPath("laptop"), filepath.Join(c.Path(), clientFile), filepath.Join(c.Path(), clientKey),
	} {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has permissions %v", f, info.Mode().Perm())
		}
	}
	load := map[string]func() error{
		filepath.Join(d.Path(), serverKey): func() error { _, err := LoadServer(d.Path()); return err },
		filepath.Join(d.Path(), tlsKey):    func() error { _, err := LoadServer(d.Path()); return err },
		filepath.Join(c.Path(), clientKey): func() error { _, err := LoadClient(c.Path()); return err },
	}
	for f, load := range load {
		for _, mode := range []os.FileMode{0o640, 0o604, 0o644} {
			if err := os.Chmod(f, mode); err != nil {
				t.Fatal(err)
			}
			wantError(t, load(), "others can read", "run chmod 600 "+f)
		}
		if err := os.Chmod(f, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := load(); err != nil {
			t.Error(err)
		}
	}
}

func TestMissingAndBrokenFolders(t *testing.T) {
	_, err := LoadServer(filepath.Join(t.TempDir(), "none"))
	wantError(t, err, "no server is set up here", "godwit server init")
	if !errors.Is(err, ErrNotSetUp) {
		t.Error(err)
	}
	_, err = LoadClient(filepath.Join(t.TempDir(), "none"))
	wantError(t, err, "no client is set up here", "godwit client join")
	if !errors.Is(err, ErrNotSetUp) {
		t.Error(err)
	}

	d := newServer(t)
	if err := os.WriteFile(filepath.Join(d.Path(), serverKey), []byte("not a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = LoadServer(d.Path())
	wantError(t, err, "not an Ed25519 private key", serverKey)
	if err := os.Remove(filepath.Join(d.Path(), serverKey)); err != nil {
		t.Fatal(err)
	}
	_, err = LoadServer(d.Path())
	wantError(t, err, "cannot read", serverKey)

	d = newServer(t)
	if err := os.WriteFile(filepath.Join(d.Path(), tlsCert), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = LoadServer(d.Path())
	wantError(t, err, "not a certificate", tlsCert)

	// A file stands where the folder should be.
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = InitServer(filepath.Join(file, "server"), exampleServer(), noon)
	wantError(t, err, file)
}

func TestLookupFollowsTheFiles(t *testing.T) {
	running := newServer(t)
	other, err := LoadServer(running.Path()) // what another process has
	if err != nil {
		t.Fatal(err)
	}
	now := noon
	wait := func() { now = now.Add(rescanAfter) }

	first := invite(t, other, "first")
	if r, err := running.LookupClient(publicKey(first), now); err != nil || r.Name != "first" {
		t.Fatalf("invited before the first lookup: %+v, %v", r, err)
	}
	stranger := publicKey(exampleLink())
	if _, err := running.LookupClient(stranger, now); !errors.Is(err, ErrUnknownClient) {
		t.Errorf("a stranger: %v", err)
	}
	wait()
	second := invite(t, other, "second")
	if r, err := running.LookupClient(publicKey(second), now); err != nil || r.Name != "second" {
		t.Errorf("invited while running: %+v, %v", r, err)
	}
	if err := other.Remove("first"); err != nil {
		t.Fatal(err)
	}
	if _, err := running.LookupClient(publicKey(first), now); !errors.Is(err, ErrUnknownClient) {
		t.Errorf("removed while running: %v", err)
	}
	if _, err := running.LookupClient(publicKey(second), now.Add(time.Hour)); !errors.Is(err, ErrExpired) {
		t.Errorf("never joined: %v", err)
	}
	// Another process marks it, this one reads it in the file.
	if err := other.MarkJoined("second"); err != nil {
		t.Fatal(err)
	}
	if r, err := running.LookupClient(publicKey(second), now.Add(time.Hour)); err != nil || !r.Joined {
		t.Errorf("joined in time: %+v, %v", r, err)
	}
	// A file written in place, its key changed.
	third := exampleLink()
	data, err := os.ReadFile(running.recordPath("second"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseRecord("", "second", data)
	if err != nil {
		t.Fatal(err)
	}
	r.PublicKey = publicKey(third)
	if err := os.WriteFile(running.recordPath("second"), r.encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	wait()
	if _, err := running.LookupClient(publicKey(third), now); err != nil {
		t.Errorf("the new key: %v", err)
	}
	if _, err := running.LookupClient(publicKey(second), now); !errors.Is(err, ErrUnknownClient) {
		t.Errorf("the old key: %v", err)
	}
	// A broken file harms its own client only.
	if err := os.WriteFile(running.recordPath("broken"), []byte("public_key = 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	wait()
	if _, err := running.LookupClient(publicKey(third), now); err != nil {
		t.Errorf("beside a broken file: %v", err)
	}
	records, err := other.Clients()
	wantError(t, err, "broken.toml", "public_key")
	if len(records) != 1 || records[0].Name != "second" {
		t.Errorf("listed %+v", records)
	}
}

func TestJoinedInMemoryWhenTheDiskIsFull(t *testing.T) {
	d := newServer(t)
	l := invite(t, d, "laptop")
	if _, err := d.LookupClient(publicKey(l), noon); err != nil {
		t.Fatal(err)
	}
	// A folder in the place of the lock fails any write, root's too.
	lock := filepath.Join(d.clientsPath(), clientsLock)
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(lock, 0o700); err != nil {
		t.Fatal(err)
	}
	wantError(t, d.MarkJoined("laptop"), "cannot write", clientsLock)
	if r, err := d.LookupClient(publicKey(l), noon.Add(2*time.Hour)); err != nil || !r.Joined {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestMarkJoinedDoesNotBringBackTheRemoved(t *testing.T) {
	d := newServer(t)
	l := invite(t, d, "laptop")
	if _, err := d.LookupClient(publicKey(l), noon); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove("laptop"); err != nil {
		t.Fatal(err)
	}
	second := invite(t, d, "laptop") // by the same name, another key
	if err := d.MarkJoined("laptop"); err != nil {
		t.Fatal(err)
	}
	if r, err := d.LookupClient(publicKey(second), noon); err != nil || r.Joined {
		t.Errorf("the new client: %+v, %v", r, err)
	}
	if err := d.Remove("laptop"); err != nil {
		t.Fatal(err)
	}
	if err := d.MarkJoined("laptop"); err != nil && !errors.Is(err, ErrUnknownClient) {
		t.Error(err)
	}
	if _, err := os.Stat(d.recordPath("laptop")); err == nil {
		t.Error("the removed client is back")
	}
}

func TestInviteMistakes(t *testing.T) {
	d := newServer(t)
	invite(t, d, "laptop")
	_, err := d.Invite("Laptop", noon, time.Hour)
	wantError(t, err, "a client of this name exists", "godwit server remove laptop")
	_, err = d.Invite("../x", noon, time.Hour)
	wantError(t, err, "not a client name")
	wantError(t, d.Remove("lapto"), "no client of this name, lapto", "did you mean laptop?")

	// An invitation that nobody took in time makes room for the next.
	if _, err := d.Invite("laptop", noon.Add(time.Hour), time.Hour); err != nil {
		t.Error(err)
	}
}

func TestInnerAddresses(t *testing.T) {
	d := newServer(t)
	d.Config.Pool4 = netip.MustParsePrefix("192.168.7.0/29") // .1 is the server's, .7 the broadcast
	d.Config.Pool6 = netip.MustParsePrefix("fd00::/64")
	for i := range 5 {
		invite(t, d, fmt.Sprintf("c%d", i))
	}
	_, err := d.Invite("c5", noon, time.Hour)
	wantError(t, err, "no inner address is free", "pool4")
	if err := d.Remove("c2"); err != nil {
		t.Fatal(err)
	}
	invite(t, d, "c5")
	records, err := d.Clients()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]bool{}
	for _, r := range records {
		if seen[r.Inner4] || seen[r.Inner6] || !d.Config.Pool4.Contains(r.Inner4) || r.Inner4 == ServerAddress(d.Config.Pool4) || r.Inner4 == netip.MustParseAddr("192.168.7.7") {
			t.Errorf("%s has %v and %v", r.Name, r.Inner4, r.Inner6)
		}
		seen[r.Inner4], seen[r.Inner6] = true, true
	}
}

// Each takes the place of one that did not come in time, wherever that is, and
// though all others are in use.
func TestInviteAllTakesPlacesOfTheExpired(t *testing.T) {
	d := newServer(t)
	at := noon
	names := []string{"d", "b", "e", "a", "c"}
	for _, pool := range []string{"192.168.7.0/29", "192.168.7.0/29", "192.168.9.0/29", "192.168.5.0/29"} {
		d.Config.Pool4 = netip.MustParsePrefix(pool) // five addresses
		if _, err := d.InviteAll(names, at, time.Hour); err != nil {
			t.Fatalf("in %s: %v", pool, err)
		}
		records, err := d.Clients()
		if err != nil {
			t.Fatal(err)
		}
		seen := map[netip.Addr]bool{}
		for _, r := range records {
			if seen[r.Inner4] || seen[r.Inner6] || !d.Config.Pool4.Contains(r.Inner4) {
				t.Errorf("in %s: %s has %v and %v", pool, r.Name, r.Inner4, r.Inner6)
			}
			seen[r.Inner4], seen[r.Inner6] = true, true
		}
		at = at.Add(time.Hour)
		slices.Reverse(names) // so that the places come free from the last to the first
	}
}

func TestManyAtOnce(t *testing.T) {
	d := newServer(t)
	var wg sync.WaitGroup
	links := make([]*Link, 16)
	for i := range links {
		// Each by its own handle, as processes of their own would.
		other, err := LoadServer(d.Path())
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			name := fmt.Sprintf("c%d", i)
			l, err := other.Invite(name, noon, time.Hour)
			if err != nil {
				t.Error(err)
				return
			}
			links[i] = l
			if r, err := d.LookupClient(publicKey(l), noon.Add(time.Duration(i)*2*rescanAfter)); err != nil || r.Name != name {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
			if err := d.MarkJoined(name); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	records, err := d.Clients()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]bool{}
	for _, r := range records {
		if !r.Joined || seen[r.Inner4] {
			t.Errorf("%+v", r)
		}
		seen[r.Inner4] = true
	}
	if len(records) != len(links) {
		t.Errorf("%d clients, want %d", len(records), len(links))
	}
	entries, err := os.ReadDir(d.clientsPath())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

func TestWriteFileIsAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := writeFile(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, tempPrefix+"1"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	removeTemporaries(dir)
	// A folder cannot be replaced by a file: the last step fails.
	taken := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(taken, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	wantError(t, writeFile(taken, []byte("new")), "cannot write", taken)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
	if data, err := os.ReadFile(path); err != nil || !bytes.Equal(data, []byte("old")) {
		t.Errorf("got %q, %v", data, err)
	}
}

func TestDefaultDir(t *testing.T) {
	base := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", base)
	if got, err := DefaultDir("server"); err != nil || got != filepath.Join(base, "godwit", "server") {
		t.Errorf("got %q, %v", got, err)
	}
	t.Setenv("XDG_CONFIG_HOME", "relative")
	t.Setenv("HOME", base)
	t.Setenv("USERPROFILE", base)
	if got, err := DefaultDir("client"); err != nil || got != filepath.Join(base, ".config", "godwit", "client") {
		t.Errorf("got %q, %v", got, err)
	}
}

// A link of a server whose certificate is the Web PKI's says so, and a client's
// folder does not pin then.
func TestLinkByWebPKI(t *testing.T) {
	d, err := InitServer(filepath.Join(t.TempDir(), "s"), Server{
		Endpoint: "vpn.example.org:443", Listen: DefaultListen, Pool4: DefaultPool4, Pool6: DefaultPool6, Encapsulations: DefaultEncapsulations(),
		Web: Web{ACMEHosts: []string{"vpn.example.org"}, ACMEDirectory: DefaultACMEDirectory, Verify: "webpki"},
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Invite("laptop", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if l, err = ParseLink(l.String(), time.Now()); err != nil {
		t.Fatal(err)
	}
	c, err := JoinClient(filepath.Join(t.TempDir(), "c"), l)
	if err != nil {
		t.Fatal(err)
	}
	if c.Config.Verify != "webpki" || c.Config.CertHash != [32]byte{} {
		t.Errorf("the client verifies by %q, with the hash %x", c.Config.Verify, c.Config.CertHash)
	}
}
