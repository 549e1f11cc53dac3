package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// What time.Now reads in a bubble, in the runtime's src/runtime/time.go of Go
// 1.26: fake seconds and nanoseconds, and no monotonic reading.
const (
	bubbleTime = "if bubble := getg().bubble; bubble != nil {\n" +
		"\t\tsec = bubble.now / (1000 * 1000 * 1000)\n" +
		"\t\tnsec = int32(bubble.now % (1000 * 1000 * 1000))\n"
	bubbleReturn = "return sec, nsec, 0\n"
)

// stepSource is what is added: the wall clock's distance, and what sets it.
// Tests reach it by go:linkname.
const stepSource = `
var synctestWall int64

//go:linkname synctestStep
func synctestStep(ns int64) { synctestWall += ns }
`

// stepWall returns the runtime's time.go with a wall clock in bubbles that can be
// set, beside the monotonic reading that time.Now gives everywhere else.
func stepWall(src []byte) ([]byte, error) {
	src = bytes.ReplaceAll(src, []byte("\r\n"), []byte("\n"))
	at := bytes.Index(src, []byte(bubbleTime))
	if at < 0 {
		return nil, fmt.Errorf("the runtime's time in bubbles is made otherwise than in Go 1.26")
	}
	end := bytes.Index(src[at:], []byte(bubbleReturn))
	if end < 0 || bytes.Contains(src[at:at+end], []byte("\n}")) {
		return nil, fmt.Errorf("the runtime's time in bubbles is returned otherwise than in Go 1.26")
	}
	var b bytes.Buffer
	b.Write(src[:at])
	b.WriteString("if bubble := getg().bubble; bubble != nil {\n\t\twall := bubble.now + synctestWall\n" +
		"\t\treturn wall / (1000 * 1000 * 1000), int32(wall % (1000 * 1000 * 1000)), bubble.now\n")
	b.Write(src[at+end+len(bubbleReturn):])
	b.WriteString(stepSource)
	return b.Bytes(), nil
}

// prepareOverlay makes the changed file below dir, and returns the path of what
// the Go command's option -overlay takes.
func prepareOverlay(dir string) (string, error) {
	dir, err := folder(dir)
	if err != nil {
		return "", err
	}
	env, err := readEnv()
	if err != nil {
		return "", err
	}
	file := filepath.Join(env.goroot, "src", "runtime", "time.go")
	src, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	if src, err = stepWall(src); err != nil {
		return "", fmt.Errorf("%s: %w", env.version, err)
	}
	final := filepath.Join(dir, fmt.Sprintf("wallclock-%x", sha256.Sum256(append(src, file...)))[:26])
	overlay := filepath.Join(final, "overlay.json")
	if _, err := os.Stat(overlay); err == nil {
		return overlay, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	partial, err := os.MkdirTemp(dir, "partial-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(partial) // nothing is left of it after the rename
	b, err := json.Marshal(map[string]map[string]string{"Replace": {file: filepath.Join(final, "time.go")}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(partial, "time.go"), src, 0o644); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(partial, "overlay.json"), b, 0o644); err != nil {
		return "", err
	}
	if err := os.Rename(partial, final); err != nil {
		if _, exists := os.Stat(overlay); exists == nil {
			return overlay, nil // another one was faster
		}
		return "", err
	}
	return overlay, nil
}
