//go:build netns

package acceptance

import (
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/godwit-net/godwit/lab/netns"
)

// A repository is a bare one of 30 MB, below a folder that a server serves.
type repository struct {
	folder string // that it is in, by the name project.git
	head   string
}

func newRepository(t *testing.T) *repository {
	t.Helper()
	r := &repository{folder: t.TempDir()}
	work := filepath.Join(t.TempDir(), "work")
	git := func(args ...string) string {
		cmd := exec.Command("git", append([]string{"-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "core.compression=0",
			"-c", "gc.auto=0", "-c", "init.defaultBranch=main"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "--quiet", work)
	data := blob(t, 30*mega)
	for i, name := range []string{"one", "two", "three"} {
		write(t, filepath.Join(work, name), string(data[i*10*mega:(i+1)*10*mega]))
		git("-C", work, "add", name)
		git("-C", work, "commit", "--quiet", "--message", name)
	}
	r.head = git("-C", work, "rev-parse", "HEAD")
	git("clone", "--quiet", "--bare", work, filepath.Join(r.folder, "project.git"))
	return r
}

// named sets a name and an address of mail: without them git asks name servers for
// the machine's own full name, to make them up.
func named(t *testing.T, d *desk) {
	t.Helper()
	write(t, filepath.Join(d.home, ".gitconfig"), "[user]\n\tname = Test\n\temail = test@example.org\n")
}

// want checks that a clone is whole.
func (r *repository) want(t *testing.T, d *desk, clone string) {
	t.Helper()
	if head := strings.TrimSpace(d.finish(t, d.start(nil, "git", "-C", clone, "rev-parse", "HEAD"))); head != r.head {
		t.Errorf("the clone's HEAD is %s, want %s", head, r.head)
	}
	d.finish(t, d.start(nil, "git", "-C", clone, "fsck", "--full", "--strict"))
	if changes := d.finish(t, d.start(nil, "git", "-C", clone, "status", "--porcelain")); changes != "" {
		t.Errorf("the files are not those of the commit: %s", changes)
	}
}

// git clones over https while the client moves. What serves it is the program
// that comes with git.
func TestGitHTTPS(t *testing.T) {
	r, id := newRepository(t), newIdentity(t)
	core, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(core)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + r.folder, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	d := startDesk(t)
	named(t, d)
	middle := newPause(t, 15*mega)
	d.serve(t, "443", id, middle.handler(backend))

	const setting = "git config --global http.proxy socks5h://127.0.0.1:1080"
	wantInGuide(t, setting)
	d.finish(t, d.start(nil, "sh", "-c", setting))
	clone := filepath.Join(d.home, "clone")
	p := d.start([]string{"GIT_SSL_CAINFO=" + id.file}, "git", "clone", "--quiet", "https://"+webName+"/project.git", clone)
	middle.wait(t, d.ctx, p)
	d.move(t, "cell")
	middle.release()
	d.finish(t, p)
	r.want(t, d, clone)
}

// git clones over OpenSSH, which gets out by a ProxyCommand, while the client moves.
func TestGitSSH(t *testing.T) {
	r := newRepository(t)
	d := startDesk(t)
	named(t, d)
	s := startSSHD(t, d.n)
	const command = "ProxyCommand nc -X 5 -x 127.0.0.1:1080 %h %p"
	wantInGuide(t, command)
	config := filepath.Join(d.home, "ssh_config")
	write(t, config, "Host "+netns.TargetIPv4.String()+"\n"+command+"\nUser root\nIdentityFile "+s.keyFile+"\nIdentitiesOnly yes\nUserKnownHostsFile "+s.hosts+"\n")

	// The server's end of the clone stops in its middle until somebody has opened
	// the second of two pipes for writing.
	reached, resume := filepath.Join(d.home, "reached"), filepath.Join(d.home, "resume")
	for _, pipe := range []string{reached, resume} {
		if err := syscall.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sender := filepath.Join(d.home, "upload-pack")
	write(t, sender, "#!/bin/sh\nGIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*' git upload-pack \"$@\" |\n"+
		"{ dd bs=16k count=900 status=none; : >"+reached+"; : <"+resume+"; exec cat; }\n")
	if err := os.Chmod(sender, 0o700); err != nil {
		t.Fatal(err)
	}
	clone := filepath.Join(d.home, "clone")
	p := d.start([]string{"GIT_SSH_COMMAND=ssh -F " + config}, "git", "clone", "--quiet", "--upload-pack", sender,
		"ssh://"+netns.TargetIPv4.String()+filepath.Join(r.folder, "project.git"), clone)
	// Opening a pipe waits for who opens its other end.
	middle := newPause(t, 1)
	opened := make(chan error, 1)
	go func() {
		f, err := os.Open(reached)
		if err == nil {
			close(middle.reached)
			f.Close()
		}
		opened <- err
	}()
	t.Cleanup(func() {
		// One that nobody opened is opened here, so that the goroutine ends.
		if f, err := os.OpenFile(reached, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			f.Close()
		}
		if err := <-opened; err != nil {
			t.Error(err)
		}
	})
	middle.wait(t, d.ctx, p)
	d.move(t, "cell")
	f, err := os.OpenFile(resume, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	d.finish(t, p)
	r.want(t, d, clone)
}
