package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const gvisor = "gvisor.dev/gvisor"

// constants is where gVisor keeps its copies of the wait reasons.
var constants = filepath.Join("pkg", "sync", "runtime_constants_go_impl.go")

type module struct{ dir, version string }

type goEnv struct {
	version string // as in go1.26.8
	goroot  string
	gomod   string // the project's go.mod
	module  module // gVisor, in the module cache
}

func readEnv() (goEnv, error) {
	out, err := goCommand("env", "GOVERSION", "GOROOT", "GOMOD")
	if err != nil {
		return goEnv{}, err
	}
	lines := strings.Split(strings.ReplaceAll(out, "\r\n", "\n"), "\n")
	if len(lines) < 3 || lines[2] == "" || lines[2] == os.DevNull {
		return goEnv{}, errors.New("run me inside the project")
	}
	e := goEnv{version: lines[0], goroot: lines[1], gomod: lines[2]}
	// On a fresh machine the module is not there yet.
	if _, err := goCommand("mod", "download", gvisor); err != nil {
		return goEnv{}, err
	}
	out, err = goCommand("list", "-m", "-f", "{{.Version}}\n{{.Dir}}", gvisor)
	if err != nil {
		return goEnv{}, err
	}
	version, dir, _ := strings.Cut(strings.TrimSpace(out), "\n")
	e.module = module{dir: strings.TrimSpace(dir), version: strings.TrimSpace(version)}
	if e.module.dir == "" {
		return goEnv{}, fmt.Errorf("go list knows no folder for %s", gvisor)
	}
	return e, nil
}

func goCommand(args ...string) (string, error) {
	var stderr bytes.Buffer
	c := exec.Command("go", args...)
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

// copyModule makes the changed copy below dir unless it is there. The folder's
// name tells all that the copy depends on, and it appears under that name by a
// rename, so it is always whole, and two that run at once get the same.
func copyModule(dir string, m module, r waitReasons) (string, error) {
	final := filepath.Join(dir, fmt.Sprintf("gvisor-%s-select%d", m.version, r.durable))
	if _, err := os.Stat(filepath.Join(final, "go.mod")); err == nil {
		return final, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	partial, err := os.MkdirTemp(dir, "partial-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(partial) // nothing is left of it after the rename
	if err := copyTree(partial, m.dir); err != nil {
		return "", err
	}
	file := filepath.Join(partial, constants)
	src, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	if src, err = patch(src, r); err != nil {
		return "", err
	}
	if err := os.WriteFile(file, src, 0o644); err != nil {
		return "", err
	}
	if err := os.Rename(partial, final); err != nil {
		if _, exists := os.Stat(filepath.Join(final, "go.mod")); exists == nil {
			return final, nil // another one was faster
		}
		return "", err
	}
	return final, nil
}

// copyTree copies gVisor's packages without their tests, writable.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		top, _, nested := strings.Cut(rel, string(filepath.Separator))
		switch {
		case d.IsDir() && rel != "." && (top != "pkg" || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case !nested && rel != "go.mod" && rel != "LICENSE",
			!d.Type().IsRegular(),
			strings.HasSuffix(rel, "_test.go"):
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o644)
	})
}

// writeModfile writes the project's go.mod with a replace, and its go.sum, to
// a folder that is named after their contents.
func writeModfile(dir, gomod, copied string) (string, error) {
	mod, err := os.ReadFile(gomod)
	if err != nil {
		return "", err
	}
	sum, err := os.ReadFile(filepath.Join(filepath.Dir(gomod), "go.sum"))
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, b := range [][]byte{mod, sum, []byte(copied)} {
		fmt.Fprintf(h, "%d:", len(b))
		h.Write(b)
	}
	final := filepath.Join(dir, fmt.Sprintf("mod-%x", h.Sum(nil)[:8]))
	modfile := filepath.Join(final, "virtualtime.mod")
	if _, err := os.Stat(modfile); err == nil {
		return modfile, nil
	}
	partial, err := os.MkdirTemp(dir, "partial-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(partial)
	draft := filepath.Join(partial, "virtualtime.mod")
	if err := os.WriteFile(draft, mod, 0o644); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(partial, "virtualtime.sum"), sum, 0o644); err != nil {
		return "", err
	}
	if _, err := goCommand("mod", "edit", "-replace="+gvisor+"="+copied, draft); err != nil {
		return "", err
	}
	if err := os.Rename(partial, final); err != nil {
		if _, exists := os.Stat(modfile); exists == nil {
			return modfile, nil
		}
		return "", err
	}
	return modfile, nil
}
