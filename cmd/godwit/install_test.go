package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInstall writes and removes units without a systemd; where its checker is
// installed, it has to like them.
func TestInstall(t *testing.T) {
	server := initServer(t)
	client := join(t, invite(t, server, "laptop"))
	for _, tt := range []struct {
		role, dir string
		system    bool
	}{
		{"server", server, true}, {"server", server, false}, {"client", client, false}, {"client", client, true},
	} {
		units := filepath.Join(t.TempDir(), "units")
		flags := []string{"--unit-dir", units, "--now=false", "--system=" + map[bool]string{true: "true", false: "false"}[tt.system]}
		path := filepath.Join(units, "godwit-"+tt.role+".service")
		godwit(t, append([]string{tt.role, "install", "--dir", tt.dir}, flags...)...).wantOK(t)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		for want, there := range map[string]bool{
			tt.role + " run --dir " + tt.dir + "\n": true,
			"NoNewPrivileges=yes":                   true,
			"ProtectSystem=strict":                  tt.system,
			"WantedBy=multi-user.target":            tt.system,
			"WantedBy=default.target":               !tt.system,
		} {
			if strings.Contains(text, want) != there {
				t.Errorf("%s: the presence of %q is not %v in\n%s", tt.role, want, there, text)
			}
		}
		if checker, err := exec.LookPath("systemd-analyze"); err == nil {
			out, err := exec.Command(checker, "verify", "--man=no", path).CombinedOutput()
			if err != nil || strings.Contains(string(out), path) {
				t.Errorf("systemd-analyze: %v\n%s", err, out)
			}
		}
		godwit(t, append([]string{tt.role, "uninstall"}, flags...)...).wantOK(t)
		if _, err := os.Stat(path); err == nil {
			t.Error("the unit is still there")
		}
		godwit(t, append([]string{tt.role, "uninstall"}, flags...)...).wantError(t, exitError, "there is no such service")
	}
	// One that leads the whole machine needs more, and cleans up behind itself.
	file := filepath.Join(client, "client.toml")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for more, want := range map[string]string{"tun = true\n": "ExecStopPost=-", "tun = true\nkill_switch = true\n": "DeviceAllow=/dev/net/tun rw"} {
		if err := os.WriteFile(file, append([]byte(more), before...), 0o600); err != nil {
			t.Fatal(err)
		}
		units := t.TempDir()
		install := []string{"client", "install", "--dir", client, "--unit-dir", units, "--now=false"}
		godwit(t, append(install, "--system=false")...).wantError(t, exitError, "client.toml line 1, tun")
		godwit(t, append(install, "--system=true")...).wantOK(t)
		path := filepath.Join(units, "godwit-client.service")
		b, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(b), want) || !strings.Contains(string(b), "CAP_NET_ADMIN\n") || strings.Contains(string(b), "ProtectKernelTunables") {
			t.Errorf("%s%v: no %q in\n%s", more, err, want, b)
		}
		if checker, err := exec.LookPath("systemd-analyze"); err == nil {
			out, err := exec.Command(checker, "verify", "--man=no", path).CombinedOutput()
			if err != nil || strings.Contains(string(out), path) {
				t.Errorf("systemd-analyze: %v\n%s", err, out)
			}
		}
	}
	empty := t.TempDir()
	godwit(t, "client", "install", "--dir", empty, "--unit-dir", empty, "--now=false").wantError(t, exitError, "godwit client join")
}

func TestUnitQuote(t *testing.T) {
	for in, want := range map[string]string{
		"/usr/bin/godwit":    "/usr/bin/godwit",
		"/home/a b/godwit":   `"/home/a b/godwit"`,
		"/home/100%/$HOME":   "/home/100%%/$$HOME",
		`/home/"quoted"`:     `"/home/\"quoted\""`,
		"/home/it's/godwit":  `"/home/it's/godwit"`,
		`/home/back\slash/x`: `"/home/back\\slash/x"`,
	} {
		if got := unitQuote(in); got != want {
			t.Errorf("%s becomes %s, want %s", in, got, want)
		}
	}
}

func TestManualPages(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "man")
	godwit(t, "man", folder).wantOK(t)
	for _, page := range []string{"godwit.1", "godwit-server-init.1", "godwit-client-run.1", "godwit-status.1"} {
		b, err := os.ReadFile(filepath.Join(folder, page))
		if err != nil {
			t.Error(err)
		} else if !strings.Contains(string(b), `.SH NAME`) {
			t.Errorf("%s is no manual page", page)
		}
	}
	if _, err := os.Stat(filepath.Join(folder, "godwit-man.1")); err == nil {
		t.Error("a hidden command has a page")
	}
	for role, want := range map[string]string{
		"server": "ConditionPathExists=/etc/godwit/server/server.toml\n\n[Service]\nExecStart=/usr/bin/godwit server run --dir /etc/godwit/server\n",
		"client": "ConditionPathExists=%h/.config/godwit/client/client.toml\n\n[Service]\nExecStart=/usr/bin/godwit client run\n",
	} {
		r := godwit(t, "man", "--unit", "/usr/bin/godwit", "--role", role)
		r.wantOK(t)
		if !strings.Contains(r.stdout, want) {
			t.Errorf("the %s's unit is\n%s", role, r.stdout)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		godwit(t, "completion", shell).wantOK(t)
	}
}
