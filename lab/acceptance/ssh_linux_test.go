//go:build netns

package acceptance

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/godwit-net/godwit/lab/netns"
)

// An sshd is an OpenSSH server at the target with keys for this test alone.
type sshd struct {
	address string
	host    ssh.PublicKey
	user    ssh.Signer
	keyFile string // of the user
	hosts   string // known_hosts file
}

func startSSHD(t *testing.T, n *netns.Network) *sshd {
	t.Helper()
	dir := t.TempDir()
	hostKey, hostFile := makeKey(t, dir, "host")
	userKey, userFile := makeKey(t, dir, "user")
	s := &sshd{
		address: net.JoinHostPort(netns.TargetIPv4.String(), "22"),
		host:    hostKey.PublicKey(), user: userKey, keyFile: userFile,
		hosts: filepath.Join(dir, "known_hosts"),
	}
	write(t, s.hosts, netns.TargetIPv4.String()+" "+string(ssh.MarshalAuthorizedKey(hostKey.PublicKey())))
	authorized := filepath.Join(dir, "authorized_keys")
	write(t, authorized, string(ssh.MarshalAuthorizedKey(userKey.PublicKey())))
	config := filepath.Join(dir, "sshd_config")
	write(t, config, fmt.Sprintf(`ListenAddress %s
HostKey %s
AuthorizedKeysFile %s
PidFile none
StrictModes no
UsePAM no
UseDNS no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
`, s.address, hostFile, authorized))
	// sshd wants this empty directory, and packages leave it to the boot.
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	p := n.Target.Start("/usr/sbin/sshd", "-D", "-e", "-f", config)
	if err := p.Stderr.Expect(within(t, time.Minute), "listening"); err != nil {
		t.Fatalf("sshd: %v", err)
	}
	return s
}

func makeKey(t *testing.T, dir, name string) (ssh.Signer, string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, name)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, name)
	write(t, file, string(pem.EncodeToMemory(block)))
	return signer, file
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A shell is an interactive session: commands are typed into one shell, which
// counts them, so that an answer with the right number can come from no other.
type shell struct {
	name   string
	in     io.WriteCloser
	expect func(ctx context.Context, text string) error
	n      int
}

// ask types a command and waits for its answer. The command's own echo does
// not look like it.
func (s *shell) ask(t *testing.T, ctx context.Context, when string) {
	t.Helper()
	s.n++
	if _, err := io.WriteString(s.in, "n=$((n+1)); echo answer-$n-of-$n\n"); err != nil {
		t.Fatalf("%s, %s: %v", s.name, when, err)
	}
	if err := s.expect(ctx, fmt.Sprintf("answer-%d-of-%d", s.n, s.n)); err != nil {
		t.Fatalf("%s, %s: %v", s.name, when, err)
	}
}

// realShell opens a session with the ssh program.
func (s *sshd) realShell(t *testing.T, c *client) *shell {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := c.host.Command("ssh", "-tt", "-F", "none", "-i", s.keyFile,
		"-o", "IdentitiesOnly=yes", "-o", "UserKnownHostsFile="+s.hosts,
		"-o", "ProxyCommand=env "+socksConnect+"="+proxyAddress+" "+self+" %h %p",
		"root@"+netns.TargetIPv4.String(), "exec /bin/sh")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = r
	p := c.host.Lab().Start(c.host.Name+"-ssh", cmd)
	r.Close()
	t.Cleanup(func() { w.Close() })
	return &shell{name: "ssh", in: w, expect: p.Stdout.Expect}
}

// goShell opens a session with Go's ssh package.
func (s *sshd) goShell(t *testing.T, c *client) *shell {
	t.Helper()
	conn, err := c.DialContext(within(t, time.Minute), "tcp", s.address)
	if err != nil {
		t.Fatalf("ssh: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	cc, chans, reqs, err := ssh.NewClientConn(conn, s.address, &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(s.user)}, HostKeyCallback: ssh.FixedHostKey(s.host),
	})
	if err != nil {
		t.Fatalf("ssh: %v", err)
	}
	client := ssh.NewClient(cc, chans, reqs)
	t.Cleanup(func() { client.Close(); _ = client.Wait() })
	session, err := client.NewSession()
	if err != nil {
		t.Fatalf("ssh: %v", err)
	}
	in, err := session.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := &lines{}
	session.Stdout = out
	if err := session.RequestPty("xterm", 24, 80, ssh.TerminalModes{}); err != nil {
		t.Fatalf("ssh: %v", err)
	}
	if err := session.Start("exec /bin/sh"); err != nil {
		t.Fatalf("ssh: %v", err)
	}
	t.Cleanup(func() { session.Close(); _ = session.Wait() })
	return &shell{name: "ssh in Go", in: in, expect: out.expect}
}

// lines keeps what a session wrote.
type lines struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	size counter
}

// Write keeps output.
func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	l.buf.Write(b)
	n := l.buf.Len()
	l.mu.Unlock()
	l.size.set(int64(n))
	return len(b), nil
}

func (l *lines) expect(ctx context.Context, text string) error {
	for {
		_, more := l.size.get()
		l.mu.Lock()
		s := l.buf.String()
		l.mu.Unlock()
		if strings.Contains(s, text) {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("no %q in %q: %w", text, s, ctx.Err())
		}
	}
}
