//go:build netns

package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// releases are made once, for this machine, for all tests: an old and a new one.
type releases struct{ old, new string } // their dist folders

func makeReleases(t *testing.T) releases {
	t.Helper()
	t.Chdir("../..")
	r := releases{old: filepath.Join(t.TempDir(), "old"), new: filepath.Join(t.TempDir(), "new")}
	for dist, version := range map[string]string{r.old: "1.2.3", r.new: "1.10.0"} {
		if err := release(dist, version, native().name(), true); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// native is the target that runs here.
func native() target {
	t := target{os: "linux", arch: runtime.GOARCH}
	if t.arch == "arm" {
		t.arm = "7"
	}
	return t
}

func (r releases) deb(dist, version string) string {
	return filepath.Join(dist, "godwit_"+version+"_"+native().debian()+".deb")
}

// TestRelease makes two releases and checks what is in them, and what becomes of a
// machine that they are installed on.
func TestRelease(t *testing.T) {
	r := makeReleases(t)
	t.Run("checksums", func(t *testing.T) { checkSums(t, r.new) })
	t.Run("package", func(t *testing.T) { checkPackage(t, r) })
	t.Run("container", func(t *testing.T) { checkContainer(t, r.new) })
}

// checkSums wants each file of a release in SHA256SUMS, as it is.
func checkSums(t *testing.T, dist string) {
	text, err := os.ReadFile(filepath.Join(dist, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if !ok {
			t.Fatalf("line %q", line)
		}
		listed[name] = sum
	}
	entries, err := os.ReadDir(dist)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dist, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%x", sha256.Sum256(b)); e.Name() != "SHA256SUMS" && listed[e.Name()] != want {
			t.Errorf("%s: %q is listed, want %s", e.Name(), listed[e.Name()], want)
		}
	}
	if len(listed) != len(entries)-1 || len(listed) != 2 {
		t.Errorf("%d files are listed, of %d", len(listed), len(entries)-1)
	}
}

// checkContainer does what the recipe of the container says with a folder: the
// program needs nothing besides itself.
func checkContainer(t *testing.T, dist string) {
	recipe, err := os.ReadFile("cmd/release/Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	find := func(expression string) string {
		t.Helper()
		m := regexp.MustCompile("(?m)" + expression).FindSubmatch(recipe)
		if m == nil {
			t.Fatalf("the recipe has no %s:\n%s", expression, recipe)
		}
		return string(m[1])
	}
	if from := find(`^FROM (.*)$`); from != "scratch" {
		t.Errorf("it begins with %s", from)
	}
	named := find(`--build-arg BINARY=dist/(\S+)`)
	if !slices.ContainsFunc(targets, func(t target) bool { return "godwit-"+t.name() == named }) {
		t.Errorf("no release has the file %s", named)
	}
	root := t.TempDir()
	program := find(`^COPY \$\{BINARY\} (\S+)$`)
	copyFile(t, filepath.Join(dist, "godwit-"+native().name()), filepath.Join(root, program))
	volume := find(`^VOLUME (\S+)$`)
	if err := os.Mkdir(filepath.Join(root, volume), 0o755); err != nil {
		t.Fatal(err)
	}
	if entry, arguments := find(`^ENTRYPOINT \["(.*)"\]$`), find(`^CMD \[(.*)\]$`); entry != program || arguments != `"server", "run", "--dir", "`+volume+`"` {
		t.Errorf("it runs %s with %s", entry, arguments)
	}
	init := strings.Fields(strings.NewReplacer("HOST", "vpn.example.org").Replace(find(`godwit (server init .*)$`)))
	inRoot(t, root, append([]string{program}, init...)...)
	inRoot(t, root, program, "check", "--dir", volume)

	f, err := elf.Open(filepath.Join(root, program))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program is not static")
		}
	}
}

// checkPackage installs, uses, upgrades, removes and purges the package in a
// folder that is a machine's root to it.
func checkPackage(t *testing.T, r releases) {
	root := newRoot(t)
	fresh := list(t, root)
	dpkg := func(args ...string) string {
		t.Helper()
		return output(t, "dpkg", append([]string{"--root=" + root, "--force-not-root", "--no-debsig", "--log=/dev/null"}, args...)...)
	}
	systemctl := func() string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(root, "systemctl.log"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "systemctl.log"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", ", ")
	}
	version := func(want string) {
		t.Helper()
		if got := inRoot(t, root, "/usr/bin/godwit", "version"); !strings.HasPrefix(got, "godwit "+want+" go") {
			t.Errorf("the program says %q, want version %s", got, want)
		}
		if got := dpkg("--status", "godwit"); !strings.Contains(got, "Status: install ok installed\n") || !strings.Contains(got, "Version: "+want+"\n") {
			t.Errorf("dpkg says\n%s", got)
		}
		if bad := dpkg("--verify", "godwit"); bad != "" {
			t.Errorf("not as packaged: %s", bad)
		}
	}

	dpkg("--install", r.deb(r.old, "1.2.3"))
	version("1.2.3")
	if got := systemctl(); got != "daemon-reload" {
		t.Errorf("the installation has systemd %s", got)
	}
	wantInstalled(t, root)
	inRoot(t, root, "/usr/bin/godwit", "server", "init", "--endpoint", "vpn.example.org:443", "--dir", "/etc/godwit/server")
	link := inRoot(t, root, "/usr/bin/godwit", "server", "invite", "laptop", "--dir", "/etc/godwit/server")
	if !strings.HasPrefix(link, "godwit://") {
		t.Errorf("the invitation is %q", link)
	}
	settings := list(t, filepath.Join(root, "etc/godwit"))
	kept := func(when string) {
		t.Helper()
		if now := list(t, filepath.Join(root, "etc/godwit")); !maps.Equal(now, settings) {
			t.Errorf("%s: the server's folder is\n%v\nand was\n%v", when, now, settings)
		}
	}

	dpkg("--install", r.deb(r.new, "1.10.0"))
	version("1.10.0")
	kept("after the upgrade")
	if got := systemctl(); got != "daemon-reload, daemon-reload, try-restart godwit-server.service" {
		t.Errorf("the upgrade has systemd %s", got)
	}
	inRoot(t, root, "/usr/bin/godwit", "check", "--dir", "/etc/godwit/server")

	dpkg("--remove", "godwit")
	kept("after the removal")
	if got := systemctl(); got != "disable --now godwit-server.service, --global disable godwit-client.service, daemon-reload" {
		t.Errorf("the removal has systemd %s", got)
	}
	left := list(t, root)
	maps.DeleteFunc(left, func(name, _ string) bool { return name == "etc/godwit" || strings.HasPrefix(name, "etc/godwit/") })
	if !maps.Equal(left, fresh) {
		t.Errorf("after the removal: %s", difference(fresh, left))
	}

	dpkg("--purge", "godwit")
	systemctl()
	if left := list(t, root); !maps.Equal(left, fresh) {
		t.Errorf("after the purge: %s", difference(fresh, left))
	}
	if out, err := exec.Command("dpkg", "--root="+root, "--list", "godwit").CombinedOutput(); err == nil && !strings.Contains(string(out), "un  godwit") {
		t.Errorf("dpkg remembers it:\n%s", out)
	}
}

// wantInstalled looks at what the package has brought besides the program.
func wantInstalled(t *testing.T, root string) {
	t.Helper()
	read := func(name string) []byte {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, page := range []string{"godwit", "godwit-server-init", "godwit-client-run", "godwit-client-force", "godwit-status"} {
		z, err := gzip.NewReader(bytes.NewReader(read("usr/share/man/man1/" + page + ".1.gz")))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(z)
		if err != nil || !bytes.Contains(text, []byte(".SH NAME")) {
			t.Errorf("%s is no manual page: %v", page, err)
		}
	}
	for name, want := range map[string]string{
		"usr/share/zsh/vendor-completions/_godwit":        "#compdef godwit",
		"usr/share/fish/vendor_completions.d/godwit.fish": "complete -c godwit",
		"usr/share/bash-completion/completions/godwit":    "complete ",
		"usr/share/doc/godwit/copyright":                  "Copyright",
		"usr/share/doc/godwit/examples/server.toml":       "listen",
		"usr/share/doc/godwit/examples/client.toml":       "encapsulations",
		"usr/lib/systemd/system/godwit-server.service":    "ExecStart=/usr/bin/godwit server run --dir /etc/godwit/server\n",
		"usr/lib/systemd/user/godwit-client.service":      "ExecStart=/usr/bin/godwit client run\n",
	} {
		if !bytes.Contains(read(name), []byte(want)) {
			t.Errorf("%s does not say %q", name, want)
		}
	}
	completed := output(t, "bash", "-c", `. "$1"; complete -p godwit`, "bash", filepath.Join(root, "usr/share/bash-completion/completions/godwit"))
	if !strings.Contains(completed, "godwit") {
		t.Errorf("bash completes by %q", completed)
	}
	checker, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("no systemd-analyze to look at the units")
		return
	}
	// It wants to see the program, which is not where the units say.
	for unit, user := range map[string]string{"system/godwit-server.service": "--system", "user/godwit-client.service": "--user"} {
		path := filepath.Join(t.TempDir(), filepath.Base(unit))
		text := bytes.ReplaceAll(read("usr/lib/systemd/"+unit), []byte("/usr/bin/godwit"), []byte(filepath.Join(root, "usr/bin/godwit")))
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		c := exec.Command(checker, "verify", user, "--man=no", path)
		c.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+filepath.Dir(path))
		out, err := c.CombinedOutput()
		if err != nil || strings.Contains(string(out), path) {
			t.Errorf("systemd-analyze about %s: %v\n%s", unit, err, out)
		}
	}
}

// newRoot makes the root of a machine that has just what the package's scripts
// call, with a systemctl that writes down what it is told.
func newRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"usr/bin", "usr/lib", "usr/lib64", "usr/share", "etc", "run/systemd/system", "var/lib/dpkg/info", "var/lib/dpkg/updates", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{"bin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+link, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"sh", "install", "rm"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			t.Fatal(err)
		}
		copyFile(t, real, filepath.Join(root, "usr/bin", name))
		libraries := output(t, "ldd", real)
		for _, lib := range regexp.MustCompile(`/\S+`).FindAllString(libraries, -1) {
			to := filepath.Join(root, lib)
			if _, err := os.Stat(to); err == nil {
				continue
			}
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				t.Fatal(err)
			}
			copyFile(t, lib, to)
		}
	}
	for name, text := range map[string]string{
		"usr/bin/systemctl": "#!/bin/sh\necho \"$*\" >>/systemctl.log\n",
		"systemctl.log":     "",
		// A folder that is empty dpkg would remove with the last that was in it.
		"usr/share/others":    "",
		"var/lib/dpkg/status": "",
		"var/lib/dpkg/arch":   native().debian() + "\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// list gives what is below a folder: kind, mode and content of each name. What dpkg
// keeps for itself is left out.
func list(t *testing.T, root string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if name == "var/lib/dpkg" {
			return fs.SkipDir
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		what := info.Mode().String()
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += fmt.Sprintf(" %x", sha256.Sum256(b))
		}
		found[name] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// difference tells what two lists do not share.
func difference(a, b map[string]string) string {
	var lines []string
	for name := range a {
		if b[name] == "" {
			lines = append(lines, "gone: "+name)
		}
	}
	for name, what := range b {
		switch a[name] {
		case "":
			lines = append(lines, "there: "+name)
		case what:
		default:
			lines = append(lines, "changed: "+name)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, ", ")
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// inRoot runs a program in another root.
func inRoot(t *testing.T, root string, args ...string) string {
	t.Helper()
	return output(t, "chroot", append([]string{root}, args...)...)
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nowhere", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	var stdout, stderr strings.Builder
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String()
}
