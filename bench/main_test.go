package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/bench/load"
	"github.com/godwit-net/godwit/bench/report"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParseSize(t *testing.T) {
	for _, tt := range []struct {
		text string
		want uint64 // 0: refused
	}{
		{"512M", 512e6}, {"2g", 2e9}, {"3K", 3000}, {"7", 7},
		{"", 0}, {"0", 0}, {"-1", 0}, {"M", 0}, {"1MM", 0}, {"1.5G", 0}, {"99999999999G", 0}, {"1T", 0},
	} {
		got, err := parseSize(tt.text)
		if got != tt.want || (err != nil) != (tt.want == 0) {
			t.Errorf("parseSize(%q) = %d, %v; want %d", tt.text, got, err, tt.want)
		}
	}
}

func TestParseOptions(t *testing.T) {
	var stderr bytes.Buffer
	o, err := parseOptions([]string{"-peers", "godwit, none,,godwit", "-tests", "up,down", "-bytes", "1M", "-rounds", "1"}, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(o.peers, []string{"godwit", "none"}) || !reflect.DeepEqual(o.tests, []report.Test{report.Up, report.Down}) || o.bytes != 1e6 || o.rounds != 1 {
		t.Errorf("options %+v", o)
	}
	o, err = parseOptions(nil, &stderr)
	if err != nil || o.rounds != 3 || !reflect.DeepEqual(o.tests, allTests) {
		t.Errorf("without flags: %+v, %v", o, err)
	}
	for _, args := range [][]string{
		{"-tests", "sideways"}, {"-rounds", "0"}, {"-bytes", "much"}, {"-limit", "0s"}, {"-rtt", "1h"},
		{"-streams", "100000"}, {"-clients", "0"}, {"-fairtime", "1ms"}, {"down"}, {"-nonsense"},
	} {
		if _, err := parseOptions(args, &stderr); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

func TestHelpAndWrongUse(t *testing.T) {
	for _, tt := range []struct {
		arg  string
		code int
		text string
	}{
		{"-help", 0, "Runs godwit beside its peers"}, {"-tests=x", 2, "none of down,up"}, {"@nothing", 1, "no such part"}, {"@target", 1, "address"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), []string{tt.arg}, &stdout, &stderr); code != tt.code || !strings.Contains(stderr.String(), tt.text) {
			t.Errorf("%s: code %d, %q", tt.arg, code, stderr.String())
		}
	}
}

// TestParts runs target, relay, forwarder and load as measurements do, but in one process.
func TestParts(t *testing.T) {
	addrs := make([]string, 3)
	for i := range addrs {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs[i] = ln.Addr().String()
		ln.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 3)
	go func() { ended <- part(ctx, []string{targetWord, addrs[0]}, new(bytes.Buffer)) }()
	go func() { ended <- part(ctx, []string{relayWord, addrs[1]}, new(bytes.Buffer)) }()
	go func() { ended <- part(ctx, []string{forwardWord, addrs[2], addrs[1]}, new(bytes.Buffer)) }()
	defer func() {
		cancel()
		for range 3 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}()
	through := []string{loadWord, "-proxy", addrs[2], "-target", addrs[0], "-limit", "1m"}
	result := func(v any, args ...string) {
		t.Helper()
		var stdout bytes.Buffer
		if err := part(ctx, append(through, args...), &stdout); err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		if err := json.Unmarshal(stdout.Bytes(), v); err != nil {
			t.Fatalf("%q: %v in %q", args, err, stdout.String())
		}
	}
	var ok bool
	if result(&ok, "-do", "probe"); !ok {
		t.Error("the probe says no")
	}
	for _, do := range []string{"down", "up"} {
		var got load.Transfer
		if result(&got, "-do", do, "-streams", "2", "-bytes", "1000000"); got.Bytes != 2*8*load.BlockSize {
			t.Errorf("%s: %+v", do, got)
		}
	}
	var pings load.Pings
	if result(&pings, "-do", "ping", "-direct", "-limit", time.Millisecond.String()); pings.Count == 0 {
		t.Errorf("pings: %+v", pings)
	}
	var times []float64
	if result(&times, "-do", "first", "-streams", "2"); len(times) != 2 {
		t.Errorf("first bytes: %v", times)
	}
}
