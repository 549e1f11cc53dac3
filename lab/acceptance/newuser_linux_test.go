//go:build netns

package acceptance

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// A step is one command that README.md gives, and on which machine.
type step struct{ machine, command string }

// quickStart reads the commands of README.md's quick start.
func quickStart(t *testing.T) (steps []step) {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## Quick start\n")
	section, _, ok2 := strings.Cut(section, "\n## ")
	if !ok || !ok2 {
		t.Fatal("README.md has no quick start")
	}
	machine := "build"
	for line := range strings.Lines(section) {
		line = strings.TrimRight(line, "\n")
		switch command, isCommand := strings.CutPrefix(line, "    "); {
		case line == "On the server:":
			machine = "server"
		case line == "On the laptop:":
			machine = "laptop"
		case isCommand:
			command, _, _ = strings.Cut(command, " #")
			if command = strings.TrimSpace(command); command != "" && command[0] != '#' {
				steps = append(steps, step{machine, command})
			}
		}
	}
	return steps
}

// userEnv runs a line of the shell as a user of the machine who has nothing yet.
func userEnv(h *netns.Host, home, bin, line string) *exec.Cmd {
	return h.Command("env", "-i", "HOME="+home, "PATH="+bin+":"+os.Getenv("PATH"), "sh", "-c", line)
}

// TestNewUser goes by README.md's quick start, from the build to a page through
// the proxy, on two machines where nothing of godwit is.
func TestNewUser(t *testing.T) {
	begin := time.Now()
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "godwit"), "./cmd/godwit") // what make build does
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	built := time.Now()
	n := netns.New(t, netns.Config{Access: accessNetworks[:1]})
	startSite(t, n, netns.TargetIPv4.String()+":80")
	startDNS(t, n.Server, "example.org.", netns.TargetIPv4)
	startDNS(t, n.Clients[0].Host, "vpn.example.org.", netns.ServerIPv4)
	ready := time.Now()

	hosts := map[string]*netns.Host{"server": n.Server, "laptop": n.Clients[0].Host}
	homes := map[string]string{"server": t.TempDir(), "laptop": t.TempDir()}
	link, count, page := "", 0, ""
	for _, s := range quickStart(t) {
		if s.machine == "build" || page != "" {
			continue
		}
		line := strings.NewReplacer("godwit://v1/…", link, "https://example.org/", "http://example.org/hello").Replace(s.command)
		p := n.Lab.Start(s.machine, userEnv(hosts[s.machine], homes[s.machine], bin, line))
		if strings.HasPrefix(line, "godwit ") {
			count++
		}
		if strings.HasSuffix(line, " run") {
			if err := p.Stdout.Expect(within(t, time.Minute), "ready"); err != nil {
				t.Fatalf("%s: %v: %s", s.command, err, p.Stderr)
			}
			continue
		}
		code, err := p.Wait(within(t, time.Minute))
		if code != 0 || err != nil {
			t.Fatalf("%s: exit code %d, %v: %s", s.command, code, err, p.Stderr)
		}
		switch {
		case strings.HasPrefix(line, "godwit server invite"):
			link = strings.TrimSpace(p.Stdout.String())
		case strings.HasPrefix(line, "godwit client join") && !strings.Contains(p.Stdout.String(), "godwit will use udp here"):
			t.Errorf("join does not say what it found: %q", p.Stdout)
		case strings.HasPrefix(line, "curl"):
			page = p.Stdout.String()
		}
	}
	if !strings.Contains(page, "this is example.org") {
		t.Errorf("the page is %q", page)
	}
	if count == 0 || count > 5 {
		t.Errorf("it takes %d commands of godwit, not up to five", count)
	}
	t.Logf("built in %v; %d commands and the first page in %v", built.Sub(begin).Round(time.Millisecond), count, time.Since(ready).Round(time.Millisecond))
}
