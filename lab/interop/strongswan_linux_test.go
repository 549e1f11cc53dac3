//go:build netns

package interop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// The names and the secrets of the two ends.
const (
	gatewayName = "gw.example.org"
	clientName  = "carol@example.org"
	sharedKey   = "a shared key for tests only"
	pool4       = "10.77.0.0/24"
)

// All algorithms that both sides know. strongSwan's user-space ESP has no
// extended sequence numbers.
const (
	allIKE = "aes128gcm16-aes256gcm16-chacha20poly1305-prfsha256-prfsha384-x25519-ecp256"
	allESP = "aes128gcm16-aes256gcm16-chacha20poly1305-x25519-ecp256-noesn,aes128gcm16-aes256gcm16-chacha20poly1305-noesn"
)

// A strongSwan is what one charon is to be. Empty fields take the defaults.
type strongSwan struct {
	gateway bool   // answers; otherwise it initiates to the server
	server  string // that an initiator dials; the network's by default
	port    int    // 4500 by default

	local, remote string            // lines of the sections local and remote; a shared key by default
	secrets       string            // of the section secrets; the shared key by default
	files         map[string]string // below the folder of swanctl
	ike, esp      string            // proposals
	connection    string            // more lines of the connection
	child         string            // more lines of its child
	charon        string            // more lines of the section charon
	runner        []string          // what runs charon, if it is not the one installed
	pools         string            // names and lines of the section pools, in place of an IPv4 one
	text          string            // swanctl.conf as it stands, in place of all above
}

// A charon is a running strongSwan.
type charon struct {
	*netns.Process
	t      *testing.T
	host   *netns.Host
	access *netns.Access // its network; set where a test needs it
	dir    string

	runner []string // as strongSwan.runner
}

// startCharon runs strongSwan in a namespace, with folders of its own.
func startCharon(t *testing.T, h *netns.Host, s strongSwan) *charon {
	t.Helper()
	c := &charon{t: t, host: h, dir: t.TempDir(), runner: s.runner}
	for _, key := range []string{"net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.rp_filter"} {
		h.Sysctl(key, "0") // or what comes out of the tunnel's device is dropped
	}
	for name, text := range s.files {
		c.write("swanctl/"+name, text)
	}
	c.write("strongswan.conf", c.settings(s))
	c.write("swanctl/swanctl.conf", s.swanctl())
	c.start()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("strongSwan at %s: %s", h.Name, tail(c.log(), 12000))
		}
	})
	return c
}

// restart ends strongSwan without a word, and runs it again.
func (c *charon) restart() {
	c.t.Helper()
	c.Kill()
	if err := os.Remove(c.socket()); err != nil {
		c.t.Fatal(err)
	}
	c.start()
}

func (c *charon) start() {
	c.t.Helper()
	c.Process = c.host.Start("env", c.env(append(slices.Clone(c.runner), "charon-systemd")...)...)
	ctx := within(c.t, time.Minute)
	for {
		if _, err := os.Stat(c.socket()); err == nil {
			out := c.swanctl("--load-all", "--noprompt")
			if strings.Contains(out, "loaded connection 'rw'") {
				return
			}
			// The socket is there a moment before anybody listens.
			if !strings.Contains(out, "Connection refused") {
				c.t.Fatalf("the settings are not loaded: %s", out)
			}
		}
		select {
		case <-c.Done():
			c.t.Fatalf("strongSwan ended: %s", c.log())
		case <-ctx.Done():
			c.t.Fatalf("strongSwan does not start: %s", c.log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *charon) socket() string { return filepath.Join(c.dir, "vici") }

// env gives the arguments of env that run a program with this charon's settings.
func (c *charon) env(program ...string) []string {
	return append([]string{
		"STRONGSWAN_CONF=" + filepath.Join(c.dir, "strongswan.conf"),
		"SWANCTL_DIR=" + filepath.Join(c.dir, "swanctl"),
	}, program...)
}

func (c *charon) write(name, text string) {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// log is what charon wrote so far.
func (c *charon) log() string {
	b, err := os.ReadFile(filepath.Join(c.dir, "charon.log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// swanctl runs a command against this charon and gives what it printed.
func (c *charon) swanctl(args ...string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := c.host.Command("env", c.env(append([]string{"swanctl"}, append(args, "--uri", "unix://"+c.socket())...)...)...)
	cmd = exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	out, _ := cmd.CombinedOutput() // a refusal is what some tests want
	return string(out)
}

// connect initiates the connection and gives what swanctl printed.
func (c *charon) connect() string {
	c.t.Helper()
	return c.swanctl("--initiate", "--ike", "rw", "--child", "net", "--timeout", "20", "--loglevel", "1")
}

// logged waits until the log holds text.
func (c *charon) logged(ctx context.Context, text string) {
	c.t.Helper()
	for !strings.Contains(c.log(), text) {
		select {
		case <-ctx.Done():
			c.t.Fatalf("strongSwan never logged %q", text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func orDefault(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// settings is strongswan.conf. The marks keep IKE and ESP out of a tunnel whose
// selectors cover the peer's own address.
func (c *charon) settings(s strongSwan) string {
	const plugins = "random nonce drbg openssl curve25519 chapoly gcm aes sha1 sha2 hmac kdf md5 mgf1 " +
		"x509 constraints pubkey pkcs1 pkcs8 pem kernel-libipsec kernel-netlink socket-default vici eap-identity eap-mschapv2"
	return fmt.Sprintf(`charon {
  load = %s
  install_virtual_ip_on = lo
  interfaces_ignore = inside
  prefer_best_path = yes
  retransmit_timeout = 1.0
  %s
  plugins {
    kernel-libipsec {
      allow_peer_ts = yes
    }
    kernel-netlink {
      fwmark = !0x42
    }
    socket-default {
      fwmark = 0x42
    }
    vici {
      socket = unix://%s
    }
  }
  filelog {
    main {
      path = %s
      time_format = %%H:%%M:%%S
      time_add_ms = yes
      flush_line = yes
      default = 1
      cfg = 2
      ike = 1
    }
  }
}
swanctl {
  load = random openssl curve25519 x509 pubkey pkcs1 pkcs8 pem
}
`, plugins, s.charon, c.socket(), filepath.Join(c.dir, "charon.log"))
}

// swanctl is swanctl.conf.
func (s strongSwan) swanctl() string {
	if s.text != "" {
		return s.text
	}
	local, remote := clientName, gatewayName
	port := s.port
	if port == 0 {
		port = 4500
	}
	way := fmt.Sprintf("remote_addrs = %s\n    remote_port = %d\n    local_port = %d\n    vips = 0.0.0.0\n    keyingtries = 1",
		orDefault(s.server, netns.ServerIPv4.String()), port, port)
	ts := "remote_ts = 0.0.0.0/0"
	pools := ""
	if s.gateway {
		local, remote = remote, local
		way, ts = "local_addrs = "+netns.ServerIPv4.String()+"\n    pools = p4\n    unique = replace", "local_ts = 0.0.0.0/0,::/0"
		pools = orDefault(s.pools, "p4 {\n    addrs = "+pool4+"\n    dns = "+netns.TargetIPv4.String()+"\n  }")
	}
	return fmt.Sprintf(`connections {
  rw {
    version = 2
    %s
    proposals = %s
    encap = yes
    send_cert = always
    %s
    local {
      %s
    }
    remote {
      %s
    }
    children {
      net {
        %s
        esp_proposals = %s
        %s
      }
    }
  }
}
pools {
  %s
}
secrets {
  %s
}
`, way, orDefault(s.ike, allIKE), s.connection,
		orDefault(s.local, "auth = psk\n      id = "+local), orDefault(s.remote, "auth = psk\n      id = "+remote),
		ts, orDefault(s.esp, allESP), s.child, pools,
		orDefault(s.secrets, fmt.Sprintf("ike-rw {\n    secret = %q\n    id-1 = %s\n    id-2 = %s\n  }", sharedKey, clientName, gatewayName)))
}
