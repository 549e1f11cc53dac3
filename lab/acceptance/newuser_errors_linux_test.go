//go:build netns

package acceptance

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/lab/netns"
)

// stories are messages in the table of docs/using.md that are none of an error;
// other tests have them.
var stories = []string{"the server had lost the link", "the peer was started anew and has lost the IKE SA"}

// foreign are what other programs say, and commands, in that table.
var foreign = []string{
	"connection refused", "Could not resolve host", "Could not connect to 127.0.0.1:1080", "ssh: nc: invalid option -- 'X'",
	"docker pull", "godwit status",
}

// symptoms reads the messages that docs/using.md explains: what its table quotes
// in its first column, but for single words.
func symptoms(t *testing.T) (messages []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/using.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## What does not work, by symptom\n")
	if !ok {
		t.Fatal("docs/using.md has no table of symptoms")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	quoted := regexp.MustCompile("`([^`]*)`")
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		for _, m := range quoted.FindAllStringSubmatch(strings.Split(line, " | ")[0], -1) {
			if strings.Contains(m[1], " ") {
				messages = append(messages, m[1])
			}
		}
	}
	if len(messages) < 10 {
		t.Fatalf("found only %q", messages)
	}
	return messages
}

// pattern matches a message as it is written in the documents, with … for what
// differs.
func pattern(message string) *regexp.Regexp {
	parts := strings.Split(message, "…")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(strings.TrimSpace(p))
	}
	return regexp.MustCompile(strings.Join(parts, ".*"))
}

// Every message that docs/using.md explains is provoked once, and reads as it is
// written there.
func TestDocumentedErrors(t *testing.T) {
	h := netns.NewLab(t).Host("host") // a loopback where every port is free
	const endpoint = "127.0.0.1:443"
	serverDir, other := t.TempDir(), t.TempDir()
	initialise := func(dir string) {
		t.Helper()
		must(t, h, "server", "init", "--endpoint", endpoint, "--listen", endpoint, "--dir", dir)
		changeFile(t, filepath.Join(dir, "server.toml"), "allow_forward = []", `allow_forward = ["tcp 127.0.0.1:8080-8081"]`)
	}
	invite := func(dir, name string, args ...string) string {
		t.Helper()
		return strings.TrimSpace(must(t, h, append([]string{"server", "invite", name, "--dir", dir}, args...)...))
	}
	join := func(name string) (dir string) {
		t.Helper()
		dir = t.TempDir()
		must(t, h, "client", "join", invite(serverDir, name), "--dir", dir, "--offline")
		return dir
	}
	// replaceKey has a client expect another server's key.
	replaceKey := func(dir string) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, "client.toml"))
		if err != nil {
			t.Fatal(err)
		}
		key := regexp.MustCompile(`server_key = "(.*)"`).FindStringSubmatch(string(text))[1]
		changeFile(t, filepath.Join(dir, "client.toml"), key, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	}
	initialise(serverDir)
	initialise(other)
	start(t, h, "server", "run", "--dir", serverDir)

	running := join("running")
	start(t, h, "client", "run", "--dir", running, "--listen", "127.0.0.1:1080", "--remote-forward", "tcp 127.0.0.1:8081 127.0.0.1:1")
	removed := join("removed")
	must(t, h, "server", "remove", "removed", "--dir", serverDir)
	wary := join("wary")
	replaceKey(wary)
	used := invite(serverDir, "used", "--once")
	must(t, h, "client", "join", used, "--dir", t.TempDir())
	late := invite(serverDir, "late", "--once")
	expires, err := os.ReadFile(filepath.Join(serverDir, "clients", "late.toml"))
	if err != nil {
		t.Fatal(err)
	}
	changeFile(t, filepath.Join(serverDir, "clients", "late.toml"), regexp.MustCompile(`expires = .*`).FindString(string(expires)), "expires = 2001-01-01T00:00:00Z")
	good := invite(serverDir, "good")
	expired, err := config.ParseLink(good, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	expired.Expires = time.Now().Add(-time.Hour)
	lost := join("lost")
	changeFile(t, filepath.Join(lost, "client.toml"), endpoint, "127.0.0.1:9")
	second, asks, wants := join("second"), join("asks"), join("wants")
	open, unknown := join("open"), join("unknown")
	if err := os.Chmod(filepath.Join(open, "client.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	changeFile(t, filepath.Join(unknown, "client.toml"), "log_level", "log_levl")

	into := func(link string) []string { return []string{godwit, "client", "join", link, "--dir", t.TempDir()} }
	run := func(dir string, args ...string) []string {
		return append([]string{godwit, "client", "run", "--dir", dir, "--listen", "127.0.0.1:0"}, args...)
	}
	// In a folder that is the root's alone, and on a disk of one page.
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o755); err != nil {
		t.Fatal(err)
	}
	// t.TempDir's own folders are its user's alone.
	for dir := filepath.Dir(closed); strings.HasPrefix(dir, filepath.Clean(os.TempDir())+string(filepath.Separator)); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(closed, "godwit")
	text, err := os.ReadFile(godwit)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	disk := t.TempDir()

	cases := map[string][]string{ // by the message in the document
		"the server is not reachable yet … still trying":                         run(lost),
		"set up, but the server is not reached":                                  nil, // below
		"refuses this client's key: the invitation has expired or was withdrawn": run(removed),
		"refuses this link: it was used already":                                 into(used),
		"by the server's clock the link expired":                                 into(late),
		"this link expired on … and this machine's clock says …":                 into(expired.String()),
		"this link is damaged":                                                   into(good[:len(good)/2]),
		"this is not a godwit link":                                              into("https://example.org/"),
		"shows another key than the one in the invitation":                       run(wary),
		"port of the server cannot be had … not allowed":                         run(asks, "--remote-forward", "tcp 127.0.0.1:80 127.0.0.1:1"),
		"port of the server cannot be had … in use":                              run(wants, "--remote-forward", "tcp 127.0.0.1:8081 127.0.0.1:1"),
		"the port is in use":                                                     {godwit, "client", "run", "--dir", second, "--listen", "127.0.0.1:1080"},
		"a client is running already":                                            run(running),
		"unknown key … did you mean …":                                           {godwit, "config", "check", "--dir", unknown},
		"unknown setting … did you mean …":                                       {"env", "GODWIT_CLIENT_LISEN=x", godwit, "config", "check", "--dir", second},
		"others can read this private key":                                       run(open),
		"cannot make the folder: permission denied":                              {"setpriv", "--reuid=65534", "--clear-groups", program, "server", "init", "--endpoint", endpoint, "--dir", filepath.Join(closed, "server")},
		"cannot write: no space left on device":                                  {"unshare", "-m", "sh", "-c", `mount -t tmpfs -o size=4k tmpfs "$1" && exec "$2" server init --endpoint "$3" --dir "$1/server"`, "sh", disk, godwit, endpoint},
		"no client is set up here":                                               run(t.TempDir()),
		"no server is set up here":                                               {godwit, "server", "run", "--dir", t.TempDir()},
	}
	lostJoin, err := config.ParseLink(good, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	lostJoin.Endpoint = "127.0.0.1:9"
	cases["set up, but the server is not reached"] = into(lostJoin.String())

	documented := map[string]bool{}
	for _, m := range symptoms(t) {
		documented[m] = true
	}
	for _, s := range append(slices.Clone(stories), foreign...) {
		delete(documented, s)
	}
	for m := range documented {
		if _, ok := cases[m]; !ok {
			t.Errorf("docs/using.md explains %q, which this test does not provoke", m)
		}
	}
	for m, args := range cases {
		if !documented[m] {
			t.Errorf("docs/using.md does not explain %q", m)
		}
		t.Run(m, func(t *testing.T) {
			p := h.Start(args[0], args[1:]...)
			want := pattern(m)
			if err := expectMatch(within(t, time.Minute), p, want); err != nil {
				t.Errorf("%v\n%s%s", err, p.Stdout, p.Stderr)
			}
			p.Kill()
			if strings.Contains(p.Stderr.String(), good) || strings.Contains(p.Stderr.String(), used) {
				t.Error("the error shows the secret link")
			}
		})
	}
}

// expectMatch waits until a line of a program's errors matches.
func expectMatch(ctx context.Context, p *netns.Process, want *regexp.Regexp) error {
	for {
		ended := false
		select {
		case <-p.Done():
			ended = true
		default:
		}
		for line := range strings.Lines(p.Stderr.String()) {
			if want.MatchString(line) {
				return nil
			}
		}
		if ended {
			return fmt.Errorf("ended without a line of %v", want)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no line of %v", want)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
