// Command release makes what is published: static binaries for every system,
// Debian packages with manual pages, completions and units, and checksums, in
// the folder dist. It is run at the top of the repository, by make release.
package main

import (
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// nfpm makes the packages; it is fetched by version and no dependency of godwit.
const nfpm = "github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0"

// A target is a system that is built for.
type target struct{ os, arch, arm string }

var targets = []target{
	{"linux", "amd64", ""}, {"linux", "arm64", ""}, {"linux", "arm", "7"},
	{"darwin", "amd64", ""}, {"darwin", "arm64", ""},
	{"windows", "amd64", ""}, {"windows", "arm64", ""},
	{"freebsd", "amd64", ""},
}

// name is as people know it, such as linux-armv7.
func (t target) name() string {
	if t.arm != "" {
		return t.os + "-" + t.arch + "v" + t.arm
	}
	return t.os + "-" + t.arch
}

// debian is dpkg's name of the architecture; empty if there is no package.
func (t target) debian() string {
	if t.os != "linux" {
		return ""
	}
	return map[string]string{"amd64": "amd64", "arm64": "arm64", "arm": "armhf"}[t.arch]
}

func main() {
	dist := flag.String("dist", "dist", "folder to write to; what is in it is removed")
	version := flag.String("version", "", "version (default what git describe says)")
	only := flag.String("only", "", "one target alone, such as linux-amd64")
	packages := flag.Bool("packages", true, "make Debian packages")
	flag.Parse()
	if err := release(*dist, *version, *only, *packages); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func release(dist, version, only string, packages bool) error {
	if _, err := os.Stat("cmd/release/nfpm.yaml"); err != nil {
		return errors.New("run it at the top of the repository: make release")
	}
	if version == "" {
		var err error
		if version, err = versionOf(); err != nil {
			return fmt.Errorf("%w: give -version", err)
		}
	}
	epoch := time.Now()
	if out, err := exec.Command("git", "log", "-1", "--format=%ct").Output(); err == nil {
		var seconds int64
		if _, err := fmt.Sscan(string(out), &seconds); err == nil {
			epoch = time.Unix(seconds, 0)
		}
	}
	if err := os.RemoveAll(dist); err != nil {
		return err
	}
	if err := os.MkdirAll(dist, 0o755); err != nil {
		return err
	}
	stage, err := os.MkdirTemp("", "godwit-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(stage)
	if packages {
		if err := documents(stage, epoch); err != nil {
			return err
		}
	}
	built := 0
	for _, t := range targets {
		if only != "" && t.name() != only {
			continue
		}
		built++
		binary, err := build(t, dist, version)
		if err != nil {
			return err
		}
		fmt.Println(binary)
		if arch := t.debian(); packages && arch != "" {
			if err := debian(stage, dist, binary, arch, version, epoch); err != nil {
				return err
			}
		}
	}
	if built == 0 {
		return fmt.Errorf("no target is called %q", only)
	}
	return checksums(dist)
}

// versionOf is the tag of the commit at hand without its v, or else one that
// grows with each commit.
func versionOf() (string, error) {
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", args...).Output()
		if err != nil {
			return "", fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(out)), nil
	}
	changes, err := git("status", "--porcelain", "--untracked-files=no")
	if err != nil {
		return "", err
	}
	if tag, err := git("describe", "--tags", "--exact-match"); err == nil && changes == "" {
		return strings.TrimPrefix(tag, "v"), nil
	}
	count, err := git("rev-list", "--count", "HEAD")
	if err != nil {
		return "", err
	}
	hash, err := git("rev-parse", "--short", "HEAD")
	if err != nil {
		return "", err
	}
	version := "0." + count + "+g" + hash
	if changes != "" {
		version += ".changed"
	}
	return version, nil
}

// build makes one static binary.
func build(t target, dist, version string) (string, error) {
	path := filepath.Join(dist, "godwit-"+t.name())
	if t.os == "windows" {
		path += ".exe"
	}
	return path, run([]string{"CGO_ENABLED=0", "GOOS=" + t.os, "GOARCH=" + t.arch, "GOARM=" + t.arm},
		"go", "build", "-trimpath", "-ldflags", "-s -w -X main.release="+version, "-o", path, "./cmd/godwit")
}

// documents makes manual pages, completions and units, by this
// machine's own build of the program.
func documents(stage string, epoch time.Time) error {
	binary := filepath.Join(stage, "godwit")
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	if err := run([]string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-o", binary, "./cmd/godwit"); err != nil {
		return err
	}
	man := filepath.Join(stage, "man")
	if err := run([]string{fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch.Unix())}, binary, "man", man); err != nil {
		return err
	}
	pages, err := filepath.Glob(filepath.Join(man, "*.1"))
	if err != nil {
		return err
	}
	for _, p := range pages {
		if err := compress(p); err != nil {
			return err
		}
	}
	folder := filepath.Join(stage, "completion")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for shell, file := range map[string]string{"bash": "godwit.bash", "zsh": "_godwit", "fish": "godwit.fish"} {
		out, err := exec.Command(binary, "completion", shell).Output()
		if err != nil {
			return fmt.Errorf("completion for %s: %w", shell, err)
		}
		if err := os.WriteFile(filepath.Join(folder, file), out, 0o644); err != nil {
			return err
		}
	}
	units := filepath.Join(stage, "units")
	if err := os.MkdirAll(units, 0o755); err != nil {
		return err
	}
	for _, role := range []string{"server", "client"} {
		out, err := exec.Command(binary, "man", "--unit", "/usr/bin/godwit", "--role", role).Output()
		if err != nil {
			return fmt.Errorf("unit of the %s: %w", role, err)
		}
		if err := os.WriteFile(filepath.Join(units, "godwit-"+role+".service"), out, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// compress replaces a file by its gzip, without a time in it.
func compress(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f, err := os.Create(path + ".gz")
	if err != nil {
		return err
	}
	z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err == nil {
		_, err = z.Write(b)
		err = errors.Join(err, z.Close())
	}
	return errors.Join(err, f.Close(), os.Remove(path))
}

// debian makes a package; epoch is the time of all its files.
func debian(stage, dist, binary, arch, version string, epoch time.Time) error {
	// A Debian version begins with a digit.
	if version[0] < '0' || version[0] > '9' {
		version = "0~" + version
	}
	env := []string{"GODWIT_ARCH=" + arch, "GODWIT_VERSION=" + version, "GODWIT_BINARY=" + binary, "GODWIT_STAGE=" + stage,
		fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch.Unix())}
	return run(env, "go", "run", nfpm, "package", "--config", "cmd/release/nfpm.yaml", "--packager", "deb", "--target", dist)
}

// checksums writes SHA256SUMS, as sha256sum -c reads it.
func checksums(dist string) error {
	entries, err := os.ReadDir(dist)
	if err != nil {
		return err
	}
	var lines []string
	for _, e := range entries {
		f, err := os.Open(filepath.Join(dist, e.Name()))
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		lines = append(lines, fmt.Sprintf("%x  %s\n", h.Sum(nil), e.Name()))
	}
	slices.Sort(lines)
	return os.WriteFile(filepath.Join(dist, "SHA256SUMS"), []byte(strings.Join(lines, "")), 0o644)
}

func run(env []string, name string, args ...string) error {
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), env...)
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}
