//go:build netns

package acceptance

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// apt fetches a package of 20 MB from a repository through the HTTP proxy while
// the client moves. Nothing of the host's own apt is read or written: all its
// folders are below one of the test's.
func TestApt(t *testing.T) {
	d := startDesk(t)
	repository := t.TempDir()
	deb := makePackage(t, repository)
	middle := newPause(t, 10*mega)
	d.serve(t, "80", nil, middle.handler(http.FileServer(http.Dir(repository))))

	root := filepath.Join(d.home, "root")
	for _, folder := range []string{"etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg"} {
		if err := os.MkdirAll(filepath.Join(root, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(root, "var/lib/dpkg/status"), "")
	write(t, filepath.Join(root, "etc/apt/sources.list"), "deb [trusted=yes] http://"+webName+"/ ./\n")
	const proxied = `Acquire::http::Proxy "http://127.0.0.1:1080";`
	wantInGuide(t, `echo '`+proxied+`' > /etc/apt/apt.conf.d/90godwit`)
	write(t, filepath.Join(root, "etc/apt/apt.conf.d/90godwit"), proxied+"\n")
	// The configuration is read before options of the command line are.
	config := filepath.Join(d.home, "apt.conf")
	write(t, config, fmt.Sprintf("Dir %q;\nDir::State::status %q;\nAPT::Sandbox::User \"root\";\nAcquire::Retries \"0\";\nAcquire::Languages \"none\";\n",
		root, filepath.Join(root, "var/lib/dpkg/status")))
	apt := []string{"APT_CONFIG=" + config}

	d.finish(t, d.start(apt, "apt-get", "--error-on=any", "update"))
	p := d.start(apt, "sh", "-c", "cd "+d.home+" && exec apt-get download godwit-test")
	middle.wait(t, d.ctx, p)
	d.move(t, "cell")
	middle.release()
	d.finish(t, p)
	got, err := os.ReadFile(filepath.Join(d.home, filepath.Base(deb)))
	want, wantErr := os.ReadFile(deb)
	if err != nil || wantErr != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, or others: %v, %v", len(got), len(want), err, wantErr)
	}
}

// makePackage makes a package of 20 MB and the lists of a repository of it alone.
func makePackage(t *testing.T, repository string) (deb string) {
	t.Helper()
	tree := t.TempDir()
	for _, folder := range []string{"DEBIAN", "usr/share/godwit-test"} {
		if err := os.MkdirAll(filepath.Join(tree, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const control = "Package: godwit-test\nVersion: 1.0\nArchitecture: all\nMaintainer: Test <test@example.org>\nDescription: something to fetch\n"
	write(t, filepath.Join(tree, "DEBIAN/control"), control)
	write(t, filepath.Join(tree, "usr/share/godwit-test/data"), string(blob(t, 20*mega)))
	if err := os.Chmod(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	deb = filepath.Join(repository, "godwit-test_1.0_all.deb")
	if out, err := exec.Command("dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, deb).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v: %s", err, out)
	}
	b, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	list := control + fmt.Sprintf("Filename: ./%s\nSize: %d\nSHA256: %x\n", filepath.Base(deb), len(b), sha256.Sum256(b))
	release := fmt.Sprintf("Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n %x %d Packages\n", sha256.Sum256([]byte(list)), len(list))
	for name, text := range map[string]string{"Packages": list, "Release": release} {
		if err := os.WriteFile(filepath.Join(repository, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return deb
}
