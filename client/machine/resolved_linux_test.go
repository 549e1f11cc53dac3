package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What systemd-resolved is told, by its own tool, and that it may refuse.
func TestResolvedIsTold(t *testing.T) {
	dir := t.TempDir()
	said := filepath.Join(dir, "said")
	tool := "#!/bin/sh\necho \"$@\" >> " + said + "\n[ $2 != refused0 ] || { echo No such link; exit 1; }\n"
	if err := os.WriteFile(filepath.Join(dir, "resolvectl"), []byte(tool), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	if err := tellResolved("godwit0"); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, said), "dns godwit0 198.18.71.2\ndomain godwit0 ~.\ndefault-route godwit0 yes\n"; got != want {
		t.Errorf("it is told %q, want %q", got, want)
	}
	if err := tellResolved("refused0"); err == nil || !strings.Contains(err.Error(), "No such link") {
		t.Errorf("a refusal is %v", err)
	}
}
