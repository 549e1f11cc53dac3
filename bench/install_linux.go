package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// installTime bounds what the installation of one peer may take.
const installTime = 10 * time.Minute

// A goPeer is a program built from a Go module of a pinned version.
//
// It is the dependency of a module made for it alone, since go install refuses
// modules whose go.mod has replace directives, and asks for lists of versions
// that not every proxy has.
type goPeer struct {
	name     string // of the program
	pkg      string // its main package
	module   string
	version  string
	mod      string            // more lines for the go.mod
	files    map[string]string // more files beside it
	checksum bool              // take go.sum from the module itself, for what checksum databases lack
}

// install builds the program, unless it is in the cache, and gives its path.
func (p goPeer) install(ctx context.Context, cache string, log *slog.Logger) (string, error) {
	dir := filepath.Join(cache, strings.Join([]string{p.name, p.version, runtime.Version()}, "-"))
	program := filepath.Join(dir, p.name)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	log.Info("build", slog.String("peer", p.name), slog.String("version", p.version))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp("", "godwit-bench-"+p.name)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	files := map[string]string{
		"go.mod": fmt.Sprintf("module bench.invalid/%s\n\ngo 1.26\n\nrequire %s %s\n%s", p.name, p.module, p.version, p.mod),
	}
	for name, content := range p.files {
		files[name] = content
	}
	for name, content := range files {
		path := filepath.Join(work, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, installTime)
	defer cancel()
	if p.checksum {
		out, err := goTool(ctx, work, "mod", "download", "-json", p.module+"@"+p.version)
		if err != nil {
			return "", err
		}
		var m struct{ Dir string }
		if err := json.Unmarshal(out, &m); err != nil {
			return "", fmt.Errorf("go mod download: %w", err)
		}
		sums, err := os.ReadFile(filepath.Join(m.Dir, "go.sum"))
		if err == nil {
			err = os.WriteFile(filepath.Join(work, "go.sum"), sums, 0o644)
		}
		if err != nil {
			return "", err
		}
	}
	// Under another name first: a build that is cut leaves nothing to be found.
	part := program + ".part"
	if _, err := goTool(ctx, work, "build", "-mod=mod", "-trimpath", "-buildvcs=false", "-o", part, p.pkg); err != nil {
		return "", err
	}
	return program, os.Rename(part, program)
}

// goTool runs the go command in a folder and gives its standard output.
func goTool(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w", args[0], explain(err))
	}
	return out, nil
}

// explain puts the last line of a program's standard error into its error.
func explain(err error) error {
	var e *exec.ExitError
	if !errors.As(err, &e) {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(e.Stderr)), "\n")
	return fmt.Errorf("%w: %s", err, lines[len(lines)-1])
}

// installDebian installs packages unless the programs are there already.
func installDebian(ctx context.Context, log *slog.Logger, programs []string, packages ...string) error {
	missing := func() (name string) {
		for _, p := range programs {
			if _, err := exec.LookPath(p); err != nil {
				return p
			}
		}
		return ""
	}
	if missing() == "" {
		return nil
	}
	log.Info("install", slog.Any("packages", packages))
	ctx, cancel := context.WithTimeout(ctx, installTime)
	defer cancel()
	for _, args := range [][]string{{"update"}, append([]string{"install", "--no-install-recommends", "-y"}, packages...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.WaitDelay = 5 * time.Second
		if _, err := cmd.Output(); err != nil {
			return fmt.Errorf("apt-get %s: %w", args[0], explain(err))
		}
	}
	if p := missing(); p != "" {
		return fmt.Errorf("%s is not among what %s brought", p, strings.Join(packages, " and "))
	}
	return nil
}

// buildGodwit builds the program of this repository, afresh each time, and
// tells its commit if git knows it.
func buildGodwit(ctx context.Context, cache string) (program, commit string, err error) {
	ctx, cancel := context.WithTimeout(ctx, installTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", "", fmt.Errorf("find the module %s (run this in its folder): %w", module, explain(err))
	}
	dir := strings.TrimSpace(string(out))
	program = filepath.Join(cache, "godwit")
	if _, err := goTool(ctx, dir, "build", "-buildvcs=false", "-o", program, module+"/cmd/godwit"); err != nil {
		return "", "", err
	}
	git := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty")
	git.Dir = dir
	if out, err := git.Output(); err == nil {
		commit = strings.TrimSpace(string(out))
	}
	return program, commit, nil
}

const module = "github.com/godwit-net/godwit"
