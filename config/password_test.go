package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A password comes from a file that others cannot read, or from the environment;
// the gateway is then the one that is dialled.
func TestGatewayPassword(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	load := func(want string) {
		t.Helper()
		d, err := LoadClient(dir)
		if err != nil {
			t.Fatal(err)
		}
		if g := d.Config.Gateway; string(d.Secret.Password) != want || g.Identity != "vpn.example.org" || d.Config.Name != "carol" || d.Secret.Credentials != nil {
			t.Errorf("%+v, password %q", g, d.Secret.Password)
		}
	}
	const table = "[gateway]\nserver = \"vpn.example.org\"\nuser = \"carol\"\n"
	write("client.toml", table, 0o600)
	_, err := LoadClient(dir)
	wantError(t, err, PasswordVariable)
	t.Setenv(PasswordVariable, "of the environment")
	load("of the environment")
	if _, err := Environment("client", os.Environ()); err != nil {
		t.Errorf("the variable is taken for a setting: %v", err)
	}
	write("client.toml", table+"password_file = \"p\"\n", 0o600)
	write("p", "of the file\nnot this\n", 0o600)
	load("of the file")
	if err := os.Chmod(filepath.Join(dir, "p"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = LoadClient(dir)
	wantError(t, err, "others can read")
}

// A user with a password is kept with its hash, and found by its name however it
// is written.
func TestPasswordUser(t *testing.T) {
	now, d := noon, newServer(t)
	hash := bytes.Repeat([]byte{7}, 16)
	if _, err := d.AddUser(ClientRecord{Name: "carol", Identity: "carol", NTHash: hash}, now); err != nil {
		t.Fatal(err)
	}
	r, err := d.LookupUser("CAROL", now)
	if err != nil || !bytes.Equal(r.NTHash, hash) || r.PSK != "" {
		t.Errorf("%+v, %v", r, err)
	}
	for _, r := range []ClientRecord{
		{Name: "dave", Identity: "dave", NTHash: hash, PSK: "both"},
		{Name: "dave", Identity: "dave", NTHash: hash[1:]},
	} {
		if _, err := d.AddUser(r, now); err == nil || !strings.Contains(err.Error(), "add it again") {
			t.Errorf("%+v gives %v", r, err)
		}
	}
}
