//go:build netns

package interop

import (
	"net"
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
		map[string]string{"own.crt": p.gwChain(), "own.key": p.gwKey}, eapPassword,
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
		files:   p.with(map[string]string{"x509/own.crt": p.gwCert, "private/own.key": p.gwKey}),
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

// What the commands print sets a server and a road warrior up.
func TestServerProfile(t *testing.T) {
	n := serverNetwork(t, netns.Config{})
	s := &server{t: t, host: n.Server, dir: t.TempDir()}
	endpoint := net.JoinHostPort(netns.ServerIPv4.String(), "443")
	s.must("", "init", "--endpoint", endpoint, "--listen", endpoint, "--allow", netns.TargetNet.String())
	_, lines, _ := strings.Cut(s.must("", "certificate", "--name", gatewayName), "\n\n")
	s.settings(lines)
	s.must(eapPassword, "user", "add", eapUser, "--password", "--secret-stdin")
	text, ca, ok := strings.Cut(s.must("", "user", "profile", eapUser, "--for", "strongswan"), "# /etc/swanctl/x509ca/godwit-authority.crt:\n")
	if !ok {
		t.Fatalf("no authority in %s", text)
	}
	text = strings.NewReplacer("godwit {", "rw {", "the password", eapPassword).Replace(text)
	s.run()
	cl := startCharon(t, n.Clients[0].Host, strongSwan{text: text, files: map[string]string{"x509ca/godwit-authority.crt": ca}})
	if out := cl.connect(); !strings.Contains(out, "completed successfully") {
		t.Fatalf("not connected: %s", out)
	}
	echoes(t, within(t, time.Minute), n.Clients[0].DialContext, echoAddress, 1<<16)
}

// Who logged in by a password that is no more has to leave, and comes back by the
// new one.
func TestServerPasswordRenewed(t *testing.T) {
	n := serverNetwork(t, netns.Config{})
	ctx := within(t, 2*time.Minute)
	p := newPKI(t, "ecdsa")
	s := eapServer(t, n, p)
	cl := startCharon(t, n.Clients[0].Host, p.eapRoadWarrior(eapUser, eapPassword, ""))
	if out := cl.connect(); !strings.Contains(out, "completed successfully") {
		t.Fatalf("not connected: %s", out)
	}
	s.must("another one", "user", "renew", eapUser, "--secret-stdin")
	cl.logged(ctx, "received DELETE for IKE_SA")
	if out := cl.connect(); !strings.Contains(out, "AUTHENTICATION_FAILURE") {
		t.Errorf("the old password lets it in: %s", out)
	}
	cl.write("swanctl/swanctl.conf", p.eapRoadWarrior(eapUser, "another one", "").swanctl())
	if out := cl.swanctl("--load-all", "--clear", "--noprompt"); !strings.Contains(out, "loaded connection 'rw'") {
		t.Fatalf("the settings are not loaded: %s", out)
	}
	if out := cl.connect(); !strings.Contains(out, "completed successfully") {
		t.Errorf("the new password does not: %s", out)
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

// Logins work through NATs, where what a client calls itself, its address, is one
// that others have too.
func TestEAPNAT(t *testing.T) {
	p := newPKI(t, "ecdsa")
	for _, both := range []bool{false, true} {
		name := "at the client's side"
		if both {
			name = "on both sides"
		}
		t.Run("client "+name, func(t *testing.T) {
			n, server := natNetwork(t, gatewayNetwork, both)
			startCharon(t, n.Server, p.eapGateway(""))
			c := eapClient(t, n.Clients[0].Host, p.ca, eapUser, eapPassword)
			c.edit(netns.ServerIPv4.String(), server)
			c.run()
			echoes(t, within(t, time.Minute), c.DialContext, echoAddress, 1<<16)
		})
		t.Run("server "+name, func(t *testing.T) {
			n, server := natNetwork(t, serverNetwork, both)
			eapServer(t, n, p)
			w := p.eapRoadWarrior(eapUser, eapPassword, "")
			w.server, w.port = server, 500 // as built-in clients do
			cl := startCharon(t, n.Clients[0].Host, w)
			if out := cl.connect(); !strings.Contains(out, "completed successfully") {
				t.Fatalf("not connected: %s", out)
			}
			echoes(t, within(t, time.Minute), n.Clients[0].DialContext, echoAddress, 1<<16)
		})
	}
}

// Peers that know nothing of RFC 7427, as Windows, sign and verify as RFC 7296 and
// RFC 4754 say; others sign by RSASSA-PSS.
func TestEAPSignatures(t *testing.T) {
	for _, tt := range []struct{ kind, charon, theirs, ours string }{
		{"rsa", "signature_authentication = no", "RSA signature", "RSA signature"},
		{"ecdsa", "signature_authentication = no", "ECDSA-256", "ECDSA-256"},
		{"rsa", "rsa_pss = yes", "RSA_EMSA_PSS", "RSA_EMSA_PKCS1_SHA2_256"}, // it verifies PKCS #1 too
	} {
		p := newPKI(t, tt.kind)
		t.Run("client "+tt.kind+" "+tt.charon, func(t *testing.T) {
			n := gatewayNetwork(t, netns.Config{})
			gw := p.eapGateway("")
			gw.charon = tt.charon
			g := startCharon(t, n.Server, gw)
			c := eapClient(t, n.Clients[0].Host, p.ca, eapUser, eapPassword)
			c.run()
			echoes(t, within(t, time.Minute), c.DialContext, echoAddress, 1<<12)
			if log := g.log(); !strings.Contains(log, "(myself) with "+tt.theirs) {
				t.Errorf("it did not sign with %s", tt.theirs)
			}
		})
		t.Run("server "+tt.kind+" "+tt.charon, func(t *testing.T) {
			n := serverNetwork(t, netns.Config{})
			eapServer(t, n, p)
			w := p.eapRoadWarrior(eapUser, eapPassword, "")
			w.charon, w.connection = tt.charon, "send_certreq = no" // as Apple's
			cl := startCharon(t, n.Clients[0].Host, w)
			if out := cl.connect(); !strings.Contains(out, "completed successfully") {
				t.Fatalf("not connected: %s", out)
			}
			if log := cl.log(); !strings.Contains(log, "'"+gatewayName+"' with "+tt.ours) {
				t.Errorf("we did not sign with %s", tt.ours)
			}
		})
	}
}

// A chain of certificates of 4 KB and more makes IKE fragment, whichever end shows
// it and whoever logs in.
func TestLongChain(t *testing.T) {
	p := newChain(t, "rsa", 2, 700)
	if n := len(p.gwChain()) * 3 / 4; n < 4096 {
		t.Fatalf("the chain has %d bytes", n)
	}
	for _, password := range []bool{true, false} {
		name := "certificates"
		if password {
			name = "password"
		}
		t.Run("client "+name, func(t *testing.T) {
			n := gatewayNetwork(t, netns.Config{})
			gw := p.strongSwan(true, "")
			if password {
				gw = p.eapGateway("")
			}
			g := startCharon(t, n.Server, gw)
			c := eapClient(t, n.Clients[0].Host, p.ca, eapUser, eapPassword)
			if !password {
				c = newClient(t, n.Clients[0].Host, "identity = \""+gatewayName+"\"\nlocal = \""+clientName+"\"\n"+certificateLines,
					map[string]string{"own.crt": p.clChain(), "own.key": p.clKey, "ca.crt": p.ca})
			}
			c.run()
			echoes(t, within(t, time.Minute), c.DialContext, echoAddress, 1<<12)
			fragmented(t, g, !password)
		})
		t.Run("server "+name, func(t *testing.T) {
			n := serverNetwork(t, netns.Config{})
			w := p.strongSwan(false, "")
			if password {
				w = p.eapRoadWarrior(eapUser, eapPassword, "")
				eapServer(t, n, p)
			} else {
				certifiedServer(t, n, p, p.ca)
			}
			cl := startCharon(t, n.Clients[0].Host, w)
			if out := cl.connect(); !strings.Contains(out, "completed successfully") {
				t.Fatalf("not connected: %s", out)
			}
			echoes(t, within(t, time.Minute), n.Clients[0].DialContext, echoAddress, 1<<12)
			fragmented(t, cl, true)
			if !password && !strings.Contains(cl.log(), "into 4 fragments") && !strings.Contains(cl.log(), "into 5 fragments") {
				t.Error("its own chain was not in fragments")
			}
		})
	}
}

// fragmented checks that strongSwan sent or received IKE_AUTH in fragments.
func fragmented(t *testing.T, c *charon, received bool) {
	t.Helper()
	want := "splitting IKE message"
	if received {
		want = "reassembled fragmented IKE message"
	}
	if log := c.log(); !strings.Contains(log, want) {
		t.Errorf("strongSwan did not log %q", want)
	}
}
