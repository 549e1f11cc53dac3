package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/config"
)

// A unit is what a systemd unit of ours says.
type unit struct {
	Role   string // server or client
	Binary string // absolute paths
	Dir    string // empty: the user's own
	System bool   // for the whole machine, not for one user
	// Package says that a package brings it, before there are settings.
	Package bool
	// Tun is for a client that leads the whole machine through its tunnel;
	// KeepClosed for one that shall leave it closed when it fails.
	Tun, KeepClosed bool
}

// Settings is the file without which there is nothing to run, as units write it.
func (u unit) Settings() string {
	if u.Dir == "" {
		return "%h/.config/godwit/" + u.Role + "/" + u.Role + ".toml"
	}
	return unitQuote(filepath.Join(u.Dir, u.Role+".toml"))
}

var unitText = template.Must(template.New("unit").Funcs(template.FuncMap{"quote": unitQuote}).Parse(`{{if .Package}}# Part of the package godwit.{{else}}# Written by "godwit {{.Role}} install"; "godwit {{.Role}} uninstall" removes it.{{end}}
[Unit]
Description=godwit {{.Role}}
Documentation=man:godwit-{{.Role}}-run(1)
{{- if .System}}
After=network.target
{{- end}}
{{- if .Package}}
ConditionPathExists={{.Settings}}
{{- end}}

[Service]
ExecStart={{quote .Binary}} {{.Role}} run{{if .Dir}} --dir {{quote .Dir}}{{end}}
ExecReload=/bin/kill -HUP $MAINPID
{{- if and .Tun (not .KeepClosed)}}
ExecStopPost=-{{quote .Binary}} client cleanup --dir {{quote .Dir}}
{{- end}}
Restart=always
RestartSec=2
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
{{- if .System}}
{{- if .Tun}}
CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_NET_ADMIN
AmbientCapabilities=CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_NET_ADMIN
ProtectSystem=yes
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
{{- else}}
CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_NET_RAW
AmbientCapabilities=CAP_NET_BIND_SERVICE CAP_NET_RAW
ProtectSystem=strict
PrivateDevices=yes
ProtectKernelTunables=yes
{{- end}}
ProtectHome=read-only
ReadWritePaths={{quote .Dir}}
PrivateTmp=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictNamespaces=yes
SystemCallFilter=@system-service
{{- end}}

[Install]
WantedBy={{if .System}}multi-user.target{{else}}default.target{{end}}
`))

// unitQuote writes a path so that systemd takes it as one word: "%" begins a
// specifier, "$" a variable, and a space ends a word.
func unitQuote(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`).Replace(s)
	if strings.ContainsAny(s, " \t'\"\\;#") {
		return `"` + s + `"`
	}
	return s
}

// name is the unit's file name.
func (u unit) name() string { return "godwit-" + u.Role + ".service" }

func (u unit) text() []byte {
	var b bytes.Buffer
	if err := unitText.Execute(&b, u); err != nil {
		panic(err) // the template is ours
	}
	return b.Bytes()
}

// unitFolder is where units of the machine or of this user belong.
func unitFolder(system bool) (string, error) {
	if system {
		return "/etc/systemd/system", nil
	}
	conf, err := os.UserConfigDir()
	if err != nil {
		return "", &config.Error{What: "the user has no folder for settings: " + lastCause(err), Do: "set HOME", Err: err}
	}
	return filepath.Join(conf, "systemd", "user"), nil
}

// serviceFlags are shared by install and uninstall.
type serviceFlags struct {
	system *bool
	folder *string
	start  *bool
}

func addServiceFlags(cmd *cobra.Command) serviceFlags {
	return serviceFlags{
		system: cmd.Flags().Bool("system", os.Geteuid() == 0, "a service of the machine rather than of this user; it needs root"),
		folder: cmd.Flags().String("unit-dir", "", "folder of the unit file (default where systemd looks)"),
		start:  cmd.Flags().Bool("now", true, "have systemd start or stop it at once"),
	}
}

// path is the unit file's.
func (f serviceFlags) path(u unit) (string, error) {
	folder := *f.folder
	if folder == "" {
		if runtime.GOOS != "linux" {
			return "", &config.Error{What: "services are made for systemd only", Where: runtime.GOOS, Do: "have your system's own means run godwit " + u.Role + " run"}
		}
		var err error
		if folder, err = unitFolder(u.System); err != nil {
			return "", err
		}
	}
	return filepath.Join(folder, u.name()), nil
}

func newInstall(role string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Have systemd run the " + role + " from now on, also after a reboot",
		Args:  takes(),
	}
	dir, flags := dirFlag(cmd, role), addServiceFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		u, err := newUnit(role, dir, *flags.system)
		if err != nil {
			return err
		}
		if _, err := checkDir(role, u.Dir); err != nil {
			return err // a service that can't start helps nobody
		}
		if role == "client" {
			d, err := loadClient(func() (string, error) { return u.Dir, nil })
			if err != nil {
				return err
			}
			if u.Tun, u.KeepClosed = d.Config.Tun.Enabled, d.Config.Tun.KillSwitch; u.Tun && !u.System {
				return &config.Error{What: "a user's service may not lead the whole machine through the tunnel", Where: d.Where("tun"), Do: "run it as root, or take tun out of client.toml"}
			}
		}
		path, err := flags.path(u)
		if err != nil {
			return err
		}
		if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
			err = os.WriteFile(path, u.text(), 0o644)
		}
		if err != nil {
			return &config.Error{What: "cannot write the unit: " + lastCause(err), Where: path, Do: "run it as root, or without --system for this user alone", Err: err}
		}
		fmt.Fprintln(cmd.OutOrStdout(), "wrote "+path)
		if !*flags.start {
			return nil
		}
		return systemctl(cmd, u, [][]string{{"daemon-reload"}, {"enable", "--now", u.name()}})
	}
	return cmd
}

func newUninstall(role string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Stop the service that install made, and remove it; settings and keys stay",
		Args:  takes(),
	}
	flags := addServiceFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		u := unit{Role: role, System: *flags.system}
		path, err := flags.path(u)
		if err != nil {
			return err
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return &config.Error{What: "there is no such service", Where: path, Do: "nothing is left to remove; see --system and --unit-dir", Err: err}
		}
		if *flags.start {
			if err := systemctl(cmd, u, [][]string{{"disable", "--now", u.name()}}); err != nil {
				return err
			}
		}
		if err := os.Remove(path); err != nil {
			return &config.Error{What: "cannot remove the unit: " + lastCause(err), Where: path, Do: "run it as root", Err: err}
		}
		fmt.Fprintln(cmd.OutOrStdout(), "removed "+path)
		if !*flags.start {
			return nil
		}
		return systemctl(cmd, u, [][]string{{"daemon-reload"}})
	}
	return cmd
}

// newUnit fills a unit with absolute paths.
func newUnit(role string, dir func() (string, error), system bool) (unit, error) {
	folder, err := dir()
	if err != nil {
		return unit{}, err
	}
	binary, err := os.Executable()
	if err == nil {
		binary, err = filepath.EvalSymlinks(binary)
	}
	if err == nil {
		folder, err = filepath.Abs(folder)
	}
	if err != nil {
		return unit{}, &config.Error{What: "cannot find the program's own file: " + lastCause(err), Do: "call it by its path", Err: err}
	}
	for _, p := range []string{binary, folder} {
		if strings.ContainsAny(p, "\n\r") {
			return unit{}, &config.Error{What: "a path with a line break can not stand in a unit", Where: fmt.Sprintf("%q", p), Do: "move it"}
		}
	}
	return unit{Role: role, Binary: binary, Dir: folder, System: system}, nil
}

// systemctl runs commands of systemd's tool.
func systemctl(cmd *cobra.Command, u unit, commands [][]string) error {
	for _, args := range commands {
		if !u.System {
			args = append([]string{"--user"}, args...)
		}
		var said bytes.Buffer
		c := exec.CommandContext(context.WithoutCancel(cmd.Context()), "systemctl", args...)
		c.Stdout, c.Stderr = &said, &said
		if err := c.Run(); err != nil {
			what := strings.Join(strings.Fields(said.String()), " ")
			if what == "" {
				what = lastCause(err)
			}
			return &config.Error{What: "systemd does not obey: " + what, Where: "systemctl " + strings.Join(args, " "), Do: "run this command yourself; --now=false leaves systemd alone", Err: err}
		}
	}
	return nil
}
