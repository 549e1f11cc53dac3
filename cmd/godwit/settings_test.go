package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/config"
)

// Each key is a flag of run, with a text that says what it is.
func TestEveryKeyIsAFlag(t *testing.T) {
	for role, cmd := range map[string]*cobra.Command{"server": newServerRun(), "client": newClientRun()} {
		for _, k := range config.Keys(role) {
			f := cmd.Flags().Lookup(k.Flag())
			if f == nil {
				t.Errorf("%s run has no --%s", role, k.Flag())
			} else if len(f.Usage) < 40 || strings.Contains(f.Usage, "`") || !strings.Contains(f.Usage, k.Variable(role)) {
				t.Errorf("%s run --%s: %q", role, k.Flag(), f.Usage)
			}
		}
	}
}

// A flag goes before the environment, which goes before the file.
func TestPrecedence(t *testing.T) {
	dir := join(t, invite(t, initServer(t), "laptop"))
	load := func(args ...string) string {
		cmd := newClientRun()
		if err := cmd.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		var level, forwards string
		flags := settingFlags(&cobra.Command{}, "client") // a second set is not disturbed
		if n := len(flags()); n != 0 {
			t.Errorf("%d flags are given", n)
		}
		var over []config.Override
		for _, k := range config.Keys("client") {
			if f := cmd.Flags().Lookup(k.Flag()); f.Changed {
				over = append(over, config.Override{Key: k.Name, Value: f.Value.String(), From: "--" + k.Flag()})
			}
		}
		d, err := loadClient(func() (string, error) { return dir, nil }, over...)
		if err != nil {
			t.Fatal(err)
		}
		level, forwards = d.Config.LogLevel.String(), strings.Join(d.Config.Forward, "; ")
		return level + " " + forwards
	}
	if got := load(); got != "INFO " {
		t.Errorf("the file alone: %q", got)
	}
	t.Setenv("GODWIT_CLIENT_LOG_LEVEL", "warn")
	t.Setenv("GODWIT_CLIENT_FORWARD", "tcp 127.0.0.1:1 a:1,tcp 127.0.0.1:2 b:2")
	if got := load(); got != "WARN tcp 127.0.0.1:1 a:1; tcp 127.0.0.1:2 b:2" {
		t.Errorf("with the environment: %q", got)
	}
	if got := load("--log-level", "error", "--forward", "udp 127.0.0.1:3 c:3", "--forward", "udp 127.0.0.1:4 d:4"); got != "ERROR udp 127.0.0.1:3 c:3; udp 127.0.0.1:4 d:4" {
		t.Errorf("with flags: %q", got)
	}
}

func TestConfigCommands(t *testing.T) {
	server := initServer(t)
	client := join(t, invite(t, server, "laptop"))
	godwit(t, "config", "check", "--dir", client).wantOK(t)
	r := godwit(t, "config", "example", "server")
	r.wantOK(t)
	if r.stdout != config.ReferenceServer {
		t.Errorf("got %q", r.stdout)
	}
	godwit(t, "config", "example", "sever").wantError(t, exitUsage, "sever is not a role", "use server or client")

	appendTo(t, filepath.Join(server, "server.toml"), "site = \"/no/such/folder\"\n")
	godwit(t, "config", "check", "--dir", server).wantError(t, exitError, "/no/such/folder", "server.toml line ", ", site")

	t.Setenv("GODWIT_CLIENT_DIR", client)
	godwit(t, "status").wantError(t, exitError, "no client is running, "+client)
	for _, tt := range []struct{ name, value, want string }{
		{"GODWIT_CLIENT_LISEN", "x", "unknown setting, the environment, GODWIT_CLIENT_LISEN: did you mean GODWIT_CLIENT_LISTEN?"},
		{"GODWIT_CLIENT_TLS", "maybe", "not a boolean, the environment, GODWIT_CLIENT_TLS: write true or false"},
		{"GODWIT_CLIENT_PROXY", "ftp://x", "the environment, GODWIT_CLIENT_PROXY"},
		{"GODWIT_CLIENT_FORWARD", "tcp", "the environment, GODWIT_CLIENT_FORWARD"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(tt.name, tt.value)
			godwit(t, "config", "check", "--dir", client).wantError(t, exitError, tt.want)
		})
	}
	appendTo(t, filepath.Join(client, "client.toml"), "forward = [\"tcp 1\"]\n")
	godwit(t, "config", "check", "--dir", client).wantError(t, exitError, `"tcp 1" is not of the form`, "client.toml line ", ", forward")
}
