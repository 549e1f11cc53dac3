package main

import (
	"bytes"
	"errors"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"github.com/godwit-net/godwit/bench/report"
)

func TestPeersHaveNamesAndWords(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range allPeers() {
		if p.name == "" || seen[p.name] || p.about == "" || p.start == nil {
			t.Errorf("peer %q is not whole", p.name)
		}
		seen[p.name] = true
		if !strings.Contains(usage, p.name) {
			t.Errorf("the help does not name %s", p.name)
		}
	}
	for _, name := range split(defaultPeers) {
		if !seen[name] {
			t.Errorf("there is no peer %s", name)
		}
	}
	o, err := parseOptions([]string{"-peers", "godwit,nobody"}, new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := measure(t.Context(), o, new(bytes.Buffer)); err == nil || r != nil {
		t.Errorf("an unknown peer gives %v, %v", r, err)
	}
}

func TestEveryTestIsInOneGroup(t *testing.T) {
	var got []report.Test
	for _, g := range groups {
		got = append(got, g.of(allTests)...)
	}
	if !reflect.DeepEqual(got, allTests) {
		t.Errorf("groups run %v, want %v", got, allTests)
	}
}

func TestScope(t *testing.T) {
	var order []int
	s := &scope{}
	s.Cleanup(func() { order = append(order, 1) })
	s.Cleanup(func() { s.Fatalf("no %s", "way") })
	s.Cleanup(func() { order = append(order, 2); s.Errorf("bad") })
	if err := s.close(); err == nil || err.Error() != "bad\nno way" {
		t.Errorf("close gives %v", err)
	}
	if !reflect.DeepEqual(order, []int{2, 1}) {
		t.Errorf("cleanups ran in the order %v", order)
	}
	if err := within(func() error { s.Fatal("a", 1); return nil }); err == nil || err.Error() != "a 1" {
		t.Errorf("Fatal gives %v", err)
	}
	plain := errors.New("plain")
	if err := within(func() error { return plain }); err != plain {
		t.Errorf("an error becomes %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a panic of somebody else is swallowed")
		}
	}()
	_ = within(func() error { panic("other") })
}

func TestLabelKeepsSecretsOut(t *testing.T) {
	got := label("/x/godwit", []string{"client", "join", "godwit://secretsecretsecret", "--dir", "d"})
	if got != "godwit client join" {
		t.Errorf("label is %q", got)
	}
}

func TestCPUModel(t *testing.T) {
	if got := cpuModel([]byte("processor\t: 0\nmodel name\t: A CPU: fast\nmodel name\t: B\n")); got != "A CPU: fast" {
		t.Errorf("model is %q", got)
	}
	if got := cpuModel(nil); got == "" {
		t.Error("no name without a model")
	}
}

func TestExplain(t *testing.T) {
	e := &exec.ExitError{Stderr: []byte("first\nlast words\n")}
	if got := explain(e); !strings.HasSuffix(got.Error(), ": last words") || !errors.Is(got, error(e)) {
		t.Errorf("explained as %q", got)
	}
}
