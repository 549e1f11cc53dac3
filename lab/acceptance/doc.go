// Package acceptance holds the tests that drive the godwit program as its user
// does, by its commands, through networks of package netns. They have the build
// tag netns, want root, and need the programs that the Makefile lists:
//
//	go test -tags netns ./lab/acceptance
//
// Real clients, such as curl, git, ssh, apt, dig and Chromium, go through the
// proxy in clients_*_test.go, set up as docs/using.md tells people.
package acceptance
