package main

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/config"
)

func TestWrongUsage(t *testing.T) {
	tests := []struct {
		args string
		want string
	}{
		{"", "no command is given, godwit: use one of server, client, status"},
		{"sever", `unknown command "sever", godwit: did you mean server?`},
		{"xyz", `unknown command "xyz", godwit: use one of`},
		{"server", "no command is given, godwit server: use one of init, invite"},
		{"server invit", "did you mean invite?"},
		{"client", "no command is given, godwit client: use one of join, run"},
		{"--colour", "wrong flag: unknown flag: --colour, godwit: see godwit --help"},
		{"server init", "--endpoint is missing"},
		{"server init --endpoint vpn.example.org", "wrong --endpoint"},
		{"server init --endpoint 0.0.0.0:443", "nobody can dial"},
		{"server init --endpoint a:1 --listen 443", "wrong --listen"},
		{"server init --endpoint a:1 --allow lan", "wrong --allow"},
		{"server init --endpoint a:1 --allow 10.1.2.3/8", "the range is 10.0.0.0/8"},
		{"server init extra --endpoint a:1", `unexpected argument "extra"`},
		{"server init --endpoint", "flag needs an argument"},
		{"server invite", "NAME is missing, godwit server invite: run godwit server invite NAME"},
		{"server invite a b", `unexpected argument "b"`},
		{"server invite a --expires soon", "wrong flag"},
		{"server invite a --expires 0s", "wrong --expires"},
		{"server invite a --expires 100000h", "wrong --expires"},
		{"server remove", "NAME is missing"},
		{"client join", "LINK is missing"},
		{"status --dir=", "--dir is empty"},
		{"demo --log-level loud", `wrong --log-level: "loud" is not a log level`},
		{"demo --listen here", "wrong --listen"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			godwit(t, strings.Fields(tt.args)...).wantError(t, exitUsage, tt.want)
		})
	}
}

func TestMistakes(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	server := initServer(t)
	link := invite(t, server, "laptop")
	client := join(t, link)
	broken := join(t, invite(t, server, "broken"))
	appendTo(t, filepath.Join(broken, "client.toml"), "lisen = \"127.0.0.1:1\"\n")
	open := join(t, invite(t, server, "open"))
	if err := os.Chmod(filepath.Join(open, "client.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		want []string
	}{
		{"server without settings", []string{"server", "run", "--dir", none}, []string{"no server is set up here, " + none, "godwit server init"}},
		{"invitation without settings", []string{"server", "invite", "a", "--dir", none}, []string{"no server is set up here"}},
		{"client without settings", []string{"client", "run", "--dir", none}, []string{"no client is set up here, " + none, "godwit client join"}},
		{"status without settings", []string{"status", "--dir", none}, []string{"no client is set up here"}},
		{"force without a client", []string{"client", "force", "tcp", "--dir", client}, []string{"no client is running, " + client, "godwit client run"}},
		{"force without settings", []string{"client", "force", "tcp", "--dir", none}, []string{"no client is set up here"}},
		{"status of a client that does not run", []string{"status", "--dir", client}, []string{"no client is running, " + client, "godwit client run"}},
		{"check without settings", []string{"check", "--dir", none}, []string{"neither a server nor a client", none}},
		{"a server where one is", []string{"server", "init", "--endpoint", "a:1", "--dir", server}, []string{"set up here already", server}},
		{"a name in use", []string{"server", "invite", "laptop", "--dir", server}, []string{"a client of this name exists, laptop", "godwit server remove laptop"}},
		{"a name that is none", []string{"server", "invite", "a/b", "--dir", server}, []string{"not a client name"}},
		{"a name that nobody has", []string{"server", "remove", "laptp", "--dir", server}, []string{"no client of this name, laptp", "did you mean laptop?"}},
		{"a client where one is", []string{"client", "join", link, "--dir", client}, []string{"joined a server already, " + client}},
		{"a link cut short", []string{"client", "join", link[:len(link)-7], "--dir", none}, []string{"this link is damaged", "copy it whole"}},
		{"a link garbled", []string{"client", "join", strings.Replace(link, link[40:43], "AbC", 1), "--dir", none}, []string{"this link is damaged"}},
		{"no link at all", []string{"client", "join", "vpn.example.org", "--dir", none}, []string{"this is not a godwit link"}},
		{"a link too late", []string{"client", "join", expiredLink(), "--dir", none}, []string{"this link expired on 9 September 2001", "godwit server invite"}},
		{"an unknown key", []string{"client", "run", "--dir", broken}, []string{`unknown key, ` + filepath.Join(broken, "client.toml") + ` line `, `, "lisen"`, "did you mean listen?"}},
		{"check of an unknown key", []string{"check", "--dir", broken}, []string{"did you mean listen?"}},
		{"a key that others can read", []string{"client", "run", "--dir", open}, []string{"others can read this private key", "chmod 600 "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			godwit(t, tt.args...).wantError(t, exitError, tt.want...)
			if _, err := os.Stat(none); err == nil {
				t.Error("the command left something behind")
			}
		})
	}
	r := godwit(t, "client", "run", "--dir", client, "--encapsulations", "udp,tpc")
	r.wantError(t, exitUsage, `wrong --encapsulations: "tpc" is not an encapsulation, godwit client run: use one or more of`)
	godwit(t, "client", "run", "--dir", client, "--encapsulations", "").wantError(t, exitUsage, "no encapsulation is named")
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// expiredLink is a link in order but for its time.
func expiredLink() string {
	l := &config.Link{
		Endpoint: "vpn.example.org:443", WebSocketPath: "/path", Name: "late",
		ServerKey: make([]byte, 32), Expires: time.Unix(1_000_000_000, 0),
	}
	return l.String()
}

func TestPortInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	address := ln.Addr().String()
	server := initServer(t, "--listen", address)
	godwit(t, "server", "run", "--dir", server).wantError(t, exitError, "the port is in use, "+address, "listen in server.toml")
	client := join(t, invite(t, server, "laptop"))
	godwit(t, "client", "run", "--dir", client, "--listen", address).wantError(t, exitError, "the port is in use, "+address, "--listen")
	godwit(t, "demo", "--listen", address).wantError(t, exitError, "the port is in use, "+address, "--listen")

	// UDP alone in use.
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	server = initServer(t, "--listen", u.LocalAddr().String())
	godwit(t, "server", "run", "--dir", server).wantError(t, exitError, "the port is in use, "+u.LocalAddr().String())

	server = initServer(t, "--listen", "192.0.2.1:4443")
	godwit(t, "server", "run", "--dir", server).wantError(t, exitError, "this host does not have the address, 192.0.2.1:4443")
}

func TestInvitePrintsTheLinkAlone(t *testing.T) {
	server := initServer(t)
	r := godwit(t, "server", "invite", "laptop", "--dir", server, "--expires", "1h")
	r.wantOK(t)
	if !regexp.MustCompile(`^godwit://v1/[A-Za-z0-9_-]+\n$`).MatchString(r.stdout) {
		t.Fatalf("got %q", r.stdout)
	}
	l, err := config.ParseLink(r.stdout, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if in := time.Until(l.Expires); in <= 0 || in > time.Hour {
		t.Errorf("it expires in %v", in)
	}
	dir := filepath.Join(t.TempDir(), "client")
	r = godwitReading(t, r.stdout, "client", "join", "-", "--dir", dir, "--offline")
	r.wantOK(t)
	if !strings.Contains(r.stdout, "joined 127.0.0.1:4443 as laptop") {
		t.Errorf("got %q", r.stdout)
	}
	for _, d := range []string{server, dir} {
		r := godwit(t, "check", "--dir", d)
		r.wantOK(t)
		if !strings.Contains(r.stdout, "is in order") {
			t.Errorf("got %q", r.stdout)
		}
	}
	r = godwit(t, "server", "clients", "--dir", server)
	r.wantOK(t)
	if !regexp.MustCompile(`(?m)^laptop +10\.143\.0\.2 +fd2c:9f61:7e0b::2 +invited until `).MatchString(r.stdout) {
		t.Errorf("got %q", r.stdout)
	}
	godwit(t, "server", "remove", "laptop", "--dir", server).wantOK(t)
	r = godwit(t, "server", "clients", "--dir", server)
	r.wantOK(t)
	if strings.Contains(r.stdout, "laptop") {
		t.Errorf("got %q", r.stdout)
	}
}

func TestDefaultFolders(t *testing.T) {
	base := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", base)
	godwit(t, "check").wantError(t, exitError, "neither a server nor a client")
	godwit(t, "server", "init", "--endpoint", "vpn.example.org:443").wantOK(t)
	link := invite(t, filepath.Join(base, "godwit", "server"), "laptop")
	godwit(t, "client", "join", link, "--offline").wantOK(t)
	r := godwit(t, "check")
	r.wantOK(t)
	for _, d := range []string{"server", "client"} {
		if !strings.Contains(r.stdout, d+" "+filepath.Join(base, "godwit", d)+" is in order") {
			t.Errorf("got %q", r.stdout)
		}
	}
}

func TestCheckFindsClientsThatShareAnAddress(t *testing.T) {
	server := initServer(t)
	invite(t, server, "a")
	invite(t, server, "b")
	path := filepath.Join(server, "clients", "b.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"10.143.0.3": "10.143.0.2", "10.143.0.3\"": "192.168.0.1\""} {
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), from, to, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		godwit(t, "check", "--dir", server).wantError(t, exitError, "client b")
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range []string{"--help", "server --help", "server init --help", "version"} {
		r := godwit(t, strings.Fields(args)...)
		r.wantOK(t)
		if !strings.Contains(r.stdout, "godwit") {
			t.Errorf("%s: %q", args, r.stdout)
		}
	}
}
