//go:build netns

package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// The user that logs in by EAP-MSCHAPv2, whatever it calls itself in IDi.
const (
	eapUser     = "carol"
	eapPassword = "a pässword for tests only"
)

// eapServer is a server with a certificate of kind, and a user with a password.
func eapServer(t *testing.T, n *netns.Network, p pki) *server {
	t.Helper()
	return startServerUser(t, n, "certificate_file = \"own.crt\"\ncertificate_key_file = \"own.key\"\n",
		map[string]string{"own.crt": p.gwCert, "own.key": p.gwKey}, eapPassword,
		[]string{"user", "add", eapUser, "--password", "--secret-stdin"})
}

// eapRoadWarrior is a strongSwan that logs in.
func (p pki) eapRoadWarrior(user, password, esp string) strongSwan {
	return strongSwan{
		esp:     esp,
		local:   "auth = eap-mschapv2\n      eap_id = " + user,
		remote:  "auth = pubkey\n      cacerts = ca.crt\n      id = " + gatewayName,
		secrets: "eap-user {\n    id = " + user + "\n    secret = \"" + password + "\"\n  }",
		files:   map[string]string{"x509ca/ca.crt": p.ca},
	}
}

// eapGateway is a strongSwan that lets carol log in.
func (p pki) eapGateway(esp string) strongSwan {
	return strongSwan{
		gateway: true, esp: esp,
		local:   "auth = pubkey\n      certs = own.crt\n      id = " + gatewayName,
		remote:  "auth = eap-mschapv2\n      eap_id = %any",
		secrets: "eap-user {\n    id = " + eapUser + "\n    secret = \"" + eapPassword + "\"\n  }",
		files:   map[string]string{"x509/own.crt": p.gwCert, "private/own.key": p.gwKey, "x509ca/ca.crt": p.ca},
	}
}

// eapClient is a client that logs in.
func eapClient(t *testing.T, h *netns.Host, ca, user, password string) *client {
	t.Helper()
	return newClient(t, h, "identity = \""+gatewayName+"\"\nuser = \""+user+"\"\npassword_file = \"password\"\nca_file = \"ca.crt\"\n",
		map[string]string{"password": password + "\n", "ca.crt": ca})
}

// A road warrior logs in by name and password, at servers with each kind of
// certificate and by each ESP algorithm.
func TestServerEAP(t *testing.T) {
	for _, kind := range []string{"rsa", "ecdsa"} {
		for _, algorithm := range espAlgorithms {
			t.Run(kind+" "+algorithm, func(t *testing.T) {
				n := serverNetwork(t, netns.Config{})
				ctx := within(t, 2*time.Minute)
				p := newPKI(t, kind)
				s := eapServer(t, n, p)
				info, err := os.Stat(filepath.Join(s.dir, "clients", eapUser+".toml"))
				if err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("the file with the secret: %v, %v", info, err)
				}
				cl := startCharon(t, n.Clients[0].Host, p.eapRoadWarrior(eapUser, eapPassword, algorithm+"-x25519-noesn"))
				if out := cl.connect(); !strings.Contains(out, "completed successfully") {
					t.Fatalf("not connected: %s", out)
				}
				echoes(t, ctx, n.Clients[0].DialContext, echoAddress, 1<<18)
				if strings.Contains(s.Stderr.String(), eapPassword) {
					t.Error("the password is in the log")
				}
			})
		}
	}
}

// The client logs in at a gateway.
func TestClientEAP(t *testing.T) {
	for _, kind := range []string{"rsa", "ecdsa"} {
		for _, algorithm := range espAlgorithms {
			t.Run(kind+" "+algorithm, func(t *testing.T) {
				n := gatewayNetwork(t, netns.Config{})
				p := newPKI(t, kind)
				startCharon(t, n.Server, p.eapGateway(algorithm+"-noesn"))
				c := eapClient(t, n.Clients[0].Host, p.ca, eapUser, eapPassword)
				c.run()
				echoes(t, within(t, time.Minute), c.DialContext, echoAddress, 1<<18)
				if strings.Contains(c.Stderr.String(), eapPassword) {
					t.Error("the password is in the log")
				}
			})
		}
	}
}

// A wrong password and an unknown user look alike from outside, and the server's
// log tells them apart.
func TestServerEAPRefuses(t *testing.T) {
	p := newPKI(t, "ecdsa")
	for _, tt := range []struct{ name, user, password, logged string }{
		{"wrong password", eapUser, "another", "wrong name or password"},
		{"unknown user", "mallory", eapPassword, "mallory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := serverNetwork(t, netns.Config{})
			s := eapServer(t, n, p)
			cl := startCharon(t, n.Clients[0].Host, p.eapRoadWarrior(tt.user, tt.password, ""))
			out := cl.connect()
			if !strings.Contains(out, "EAP-MS-CHAPv2 failed with error ERROR_AUTHENTICATION_FAILURE") || !strings.Contains(out, "failed") {
				t.Errorf("the client says: %s", out)
			}
			if err := s.Stderr.Expect(within(t, 10*time.Second), "login refused"); err != nil {
				t.Error(err)
			}
			if err := s.Stderr.Expect(within(t, 10*time.Second), tt.logged); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestClientEAPRefused(t *testing.T) {
	p := newPKI(t, "ecdsa")
	for _, tt := range []struct{ name, user, password, ca, says string }{
		{"wrong password", eapUser, "another", p.ca, "name or the password is wrong"},
		{"unknown user", "mallory", eapPassword, p.ca, "name or the password is wrong"},
		{"another authority", eapUser, eapPassword, newPKI(t, "ecdsa").ca, "not to be trusted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := gatewayNetwork(t, netns.Config{})
			startCharon(t, n.Server, p.eapGateway(""))
			c := eapClient(t, n.Clients[0].Host, tt.ca, tt.user, tt.password)
			if line := c.fails(); !strings.Contains(line, tt.says) {
				t.Errorf("it says %q", line)
			}
		})
	}
}
