//go:build netns

package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// capture listens to a host's device by tcpdump, which keeps whole frames.
func capture(t *testing.T, h *netns.Host, dev string) (file string, stop func()) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "capture.pcap")
	p := h.Start("tcpdump", "-i", dev, "-n", "-s", "0", "-U", "--immediate-mode", "-Z", "root", "-w", file, "udp")
	if err := p.Stderr.Expect(within(t, 10*time.Second), "listening on"); err != nil {
		t.Fatal(err)
	}
	return file, func() {
		time.Sleep(200 * time.Millisecond) // what the kernel still holds
		p.Kill()
	}
}

// tshark dissects a capture with exported keys.
func tshark(t *testing.T, keys, file string, args ...string) string {
	t.Helper()
	cmd := exec.Command("tshark", append([]string{"-n", "-r", file}, args...)...)
	cmd.Env = append(os.Environ(), "WIRESHARK_CONFIG_DIR="+keys)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	return string(out)
}

// wellFormed asserts that a dissector which is not ours understands all of a
// capture.
func wellFormed(t *testing.T, keys, file string) {
	t.Helper()
	if out := tshark(t, keys, file, "-Y", "_ws.malformed || _ws.short || (isakmp && _ws.expert.severity >= 6291456)", "-V"); out != "" {
		t.Errorf("malformed: %s", tail(out, 4000))
	}
	detail := tshark(t, keys, file, "-Y", "isakmp", "-V", "-O", "isakmp")
	for line := range strings.SplitSeq(detail, "\n") {
		if l := strings.ToLower(line); strings.Contains(l, "unknown") || strings.Contains(l, "malformed") {
			t.Errorf("a field that is not understood: %s", line)
		}
	}
	if !strings.Contains(detail, "Exchange type: IKE_AUTH") || !strings.Contains(detail, "Payload: Traffic Selector - Initiator") {
		t.Errorf("IKE is not decrypted: %s", tail(detail, 4000))
	}
}

// IKE and ESP between the client and strongSwan, rekeying included, as another
// dissector shows them with the keys that the client exported.
func TestDissectGateway(t *testing.T) {
	n := gatewayNetwork(t, netns.Config{})
	ctx := within(t, 2*time.Minute)
	gw := startCharon(t, n.Server, strongSwan{gateway: true})
	file, stop := capture(t, n.Server, "wan")
	c := pskClient(t, n.Clients[0].Host)
	keys := t.TempDir()
	c.run("--key-log", keys, "--ike-lifetime=2s", "--child-lifetime=2s")
	if err := c.Stderr.Expect(ctx, "KEYS ARE WRITTEN"); err != nil {
		t.Errorf("exporting keys is not marked: %v", err)
	}
	for _, after := gw.rekeyings(); !gw.rekeyed() || after < 2; _, after = gw.rekeyings() {
		echoes(t, ctx, c.DialContext, echoAddress, 1<<10)
		time.Sleep(50 * time.Millisecond)
	}
	echoes(t, ctx, c.DialContext, echoAddress, 1<<10) // on what came last, however long all that took
	stop()
	wellFormed(t, keys, file)
	esp := tshark(t, keys, file, "-Y", "esp && tcp.port == "+echoPort, "-T", "fields", "-e", "esp.spi", "-e", "esp.icv_bad", "-e", "ip.src")
	if strings.Contains(esp, "True") {
		t.Errorf("bad ICVs: %s", esp)
	}
	spis := map[string]bool{}
	for line := range strings.Lines(esp) {
		spi, _, _ := strings.Cut(line, "\t")
		spis[spi] = true
	}
	if mip := tshark(t, keys, file, "-Y", "mip"); mip != "" {
		t.Errorf("the client registers with a gateway that knows no registrations: %s", tail(mip, 2000))
	}
	if len(spis) < 4 {
		t.Errorf("TCP is shown in %d ESP SAs, want those of several rekeyings: %s", len(spis), esp)
	}
	if all := tshark(t, keys, file, "-Y", "esp && !ip.proto == 50 && !tcp && !udp.port == 53 && esp.protocol != 59"); strings.Contains(all, "ESP (SPI") {
		t.Errorf("ESP that is not decrypted: %s", tail(all, 2000))
	}
}

// Two godwits that know each other by a shared key tell from the exchange what
// they are: they register, which the Mobile IP dissector shows. With raw keys they
// do the same, but that dissector takes a raw key (RFC 7670) for a certificate.
func TestDissectRegistration(t *testing.T) {
	n := serverNetwork(t, netns.Config{})
	keys := t.TempDir()
	startServer(t, n, "")
	file, stop := capture(t, n.Server, "wan")
	c := pskClient(t, n.Clients[0].Host)
	// The dissector has one pair of keys for an IKE SA, and does not know
	// IKE_INTERMEDIATE, which changes them.
	c.run("--key-log", keys, "--post-quantum", "never")
	echoes(t, within(t, time.Minute), c.DialContext, echoAddress, 1<<10)
	for c.status().State != "connected" || len(c.status().Registrations) == 0 || !c.status().Registrations[0].Done {
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	wellFormed(t, keys, file)
	// The dissector has no extended sequence numbers, so it cannot verify ICVs.
	mip := tshark(t, keys, file, "-o", "esp.enable_authentication_check:FALSE", "-Y", "mip", "-T", "fields",
		"-e", "mip.type", "-e", "mip.homeaddr", "-e", "mip.haaddr", "-e", "mip.coa", "-e", "mip.code", "-e", "mip.life")
	if !strings.Contains(mip, fmt.Sprintf("1\t10.143.0.2\t10.143.0.1\t%s", n.Clients[0].Addresses("home")[0])) || !strings.Contains(mip, "3\t10.143.0.2\t10.143.0.1\t\t0") {
		t.Errorf("no registration request and reply: %q", mip)
	}
	if bad := tshark(t, keys, file, "-o", "esp.enable_authentication_check:FALSE", "-Y", "mip && _ws.malformed", "-V"); bad != "" {
		t.Errorf("malformed: %s", tail(bad, 4000))
	}
}

// A registration request that a program behind strongSwan sends is a datagram like
// any other: the dissector shows it inside ESP, and the server takes no notice.
func TestServerMobileIP(t *testing.T) {
	n := serverNetwork(t, netns.Config{})
	ctx := within(t, time.Minute)
	keys := t.TempDir()
	startServer(t, n, "", "--key-log", keys)
	file, stop := capture(t, n.Server, "wan")
	cl := startCharon(t, n.Clients[0].Host, strongSwan{esp: "aes256gcm16-noesn"})
	if out := cl.connect(); !strings.Contains(out, "completed successfully") {
		t.Fatalf("not connected: %s", out)
	}
	conn, err := n.Clients[0].DialContext(ctx, "udp", "10.143.0.1:434")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// RFC 5944, Section 3.3: type, flags, lifetime; home address, home agent,
	// care-of address; identification.
	request := append([]byte{1, 0, 2, 88, 10, 143, 0, 2, 10, 143, 0, 1, 203, 0, 113, 9}, 0, 0, 0, 0, 0, 0, 0, 1)
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	echoes(t, ctx, n.Clients[0].DialContext, echoAddress, 1<<12) // behind it, and as ever
	stop()
	wellFormed(t, keys, file)
	mip := tshark(t, keys, file, "-Y", "mip && esp", "-T", "fields", "-e", "mip.type", "-e", "mip.homeaddr", "-e", "mip.coa")
	if strings.TrimSpace(mip) != "1\t10.143.0.2\t203.0.113.9" {
		t.Errorf("the dissector shows %q", mip)
	}
}

// Two godwits do the same when the client logs in by name and password, and the
// dissector understands each round of it.
func TestDissectLogin(t *testing.T) {
	n := serverNetwork(t, netns.Config{})
	p, keys := newPKI(t, "ecdsa"), t.TempDir()
	eapServer(t, n, p)
	file, stop := capture(t, n.Server, "wan")
	c := eapClient(t, n.Clients[0].Host, p.ca, eapUser, eapPassword)
	c.run("--key-log", keys, "--post-quantum", "never") // as above
	ctx := within(t, time.Minute)
	echoes(t, ctx, c.DialContext, echoAddress, 1<<10)
	await(t, ctx, "a registration", func() bool {
		s := c.status()
		return s.State == "connected" && len(s.Registrations) > 0 && s.Registrations[0].Done
	})
	stop()
	wellFormed(t, keys, file)
	rounds := tshark(t, keys, file, "-Y", "eap", "-T", "fields", "-e", "eap.code", "-e", "eap.type", "-e", "eap.ms_chap_v2.opcode")
	if want := "1\t1\t\n2\t1\t\n1\t26\t1\n2\t26\t2\n1\t26\t3\n2\t26\t3\n3\t\t\n"; rounds != want {
		t.Errorf("the rounds are %q, want %q", rounds, want)
	}
}
