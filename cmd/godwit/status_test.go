package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/godwit-net/godwit/client"
)

func exampleStatus() client.Status {
	return client.Status{
		State: "connected", Server: "vpn.example.org:443", Inner: []string{"10.143.0.2", "fd2c:9f61:7e0b::2"},
		Path: &client.PathStatus{Encapsulation: "udp", Local: "192.168.1.7:40000", Remote: "198.51.100.2:443", RTTms: 21.5, Verdict: "napt", MTUOut: 1500},
		Registrations: []client.Registration{
			{Number: 1, Trigger: "connect", Selected: "udp", Verdict: "napt", Revision: 2, DurationMs: 21.5, Done: true, GapInMs: 43, ResentBytes: 1400, Copies: []client.Copy{
				{Encapsulation: "udp", Sent: 2, Answered: true, RTTms: 21.5}, {Encapsulation: "tcp", Sent: 2, Error: "connection refused"}}},
			{Number: 2, Trigger: "address", Copies: []client.Copy{{Encapsulation: "websocket", Sent: 4}}},
		},
		Standby:   &client.PathStatus{Encapsulation: "tcp", Local: "10.0.0.2:40000", Remote: "198.51.100.2:443"},
		Portal:    &client.PortalStatus{Evidence: "HTTP status 302", URL: "http://portal.example/"},
		BytesSent: 999, BytesReceived: 314_572_800, PacketsSent: 12, PacketsReceived: 220_001,
	}
}

func TestPrintStatus(t *testing.T) {
	var out bytes.Buffer
	if err := printStatus(&out, exampleStatus()); err != nil {
		t.Fatal(err)
	}
	want := `state        connected
server       vpn.example.org:443
inner        10.143.0.2, fd2c:9f61:7e0b::2
path         udp, 192.168.1.7:40000 to 198.51.100.2:443
round trip   21.5 ms
translation  napt
path MTU     1500 out, - in
standby      tcp, 10.0.0.2:40000 to 198.51.100.2:443
sent         999 B in 12 packets
received     314.6 MB in 220001 packets
portal       HTTP status 302
page         http://portal.example/

MOVE  TRIGGER  SELECTED  VERDICT  REVISION  TOOK     GAP OUT/IN   SENT AGAIN  COPIES
1     connect  udp       napt     2         21.5 ms  - / 43.0 ms  1.4 kB      udp sent 2, answered in 21.5 ms; tcp sent 2, connection refused
2     address  -         -        0         waiting  - / -        0 B         websocket sent 4, no answer
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	two := exampleStatus()
	two.Path.Down = &client.PathStatus{Encapsulation: "udp-4500", Local: "192.168.1.7:40001", Remote: "198.51.100.2:4500"}
	two.Registrations[0].Down = "udp-4500"
	if err := printStatus(&out, two); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"path back    udp-4500, 198.51.100.2:4500 to 192.168.1.7:40001; nothing passes both ways\n", "  udp / udp-4500  napt"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := printStatus(&out, client.Status{State: "connecting", Server: "a:1", LastError: "no route"}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "trouble   no route") {
		t.Errorf("got\n%s", out.String())
	}
}

// Later work and other programs rely on these names.
func TestStatusKeys(t *testing.T) {
	b, err := json.Marshal(exampleStatus())
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	has := func(where any, keys ...string) {
		t.Helper()
		m, _ := where.(map[string]any)
		for _, k := range keys {
			if _, ok := m[k]; !ok {
				t.Errorf("%s is missing in %v", k, where)
			}
		}
	}
	has(s, "state", "inner", "path", "registrations", "bytes_sent", "bytes_received", "packets_sent", "packets_received")
	has(s["path"], "encapsulation", "local", "remote", "rtt_ms", "verdict")
	registrations, _ := s["registrations"].([]any)
	has(registrations[0], "number", "trigger", "selected", "verdict", "revision", "duration_ms", "copies")
}

func TestControlSocket(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, controlSocket)
	// What a killed process leaves: a socket where nobody listens.
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := clientControl(socket, exampleStatus, nil)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(socket); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	if _, err := clientControl(socket, exampleStatus, nil); err == nil || !strings.Contains(err.Error(), "running already, "+dir) {
		t.Errorf("a second one: %v", err)
	}
	r := godwit(t, "status", "--json", "--dir", dir)
	r.wantOK(t)
	var s client.Status
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil || !reflect.DeepEqual(s, exampleStatus()) {
		t.Errorf("got %+v, %v", s, err)
	}
	r = godwit(t, "status", "--dir", dir)
	r.wantOK(t)
	if !strings.HasPrefix(r.stdout, "state        connected\n") {
		t.Errorf("got %q", r.stdout)
	}
	c.close()
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket was left behind")
	}

	// A file of the user's is not replaced.
	if err := os.WriteFile(socket, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := clientControl(socket, exampleStatus, nil); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("over a file: %v", err)
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 1<<64 - 1: "18.4 EB"} {
		if got := byteCount(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
