//go:build netns

package acceptance

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/proxy"
)

// socksConnect is the variable that turns this program into one that connects
// through the SOCKS5 proxy that the variable names and copies both ways: the
// ProxyCommand of ssh.
const socksConnect = "ACCEPTANCE_SOCKS_CONNECT"

// godwit is the path of the program under test.
var godwit string

func TestMain(m *testing.M) {
	if through := os.Getenv(socksConnect); through != "" {
		if err := connectThrough(through, net.JoinHostPort(os.Args[1], os.Args[2])); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "acceptance")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	godwit = filepath.Join(dir, "godwit")
	if out, err := exec.Command("go", "build", "-o", godwit, "github.com/godwit-net/godwit/cmd/godwit").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build godwit: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func connectThrough(socks, address string) error {
	d, err := proxy.SOCKS5("tcp", socks, nil, proxy.Direct)
	if err != nil {
		return err
	}
	c, err := d.Dial("tcp", address)
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(c, os.Stdin)
		c.Close()
	}()
	_, err = io.Copy(os.Stdout, c)
	return err
}

// within bounds a test that hangs; no test asserts how long things take.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}
