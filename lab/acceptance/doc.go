// Package acceptance holds the tests that drive the godwit program as its user
// does, by its commands, through networks of package netns. They have the build
// tag netns, want root, and need the programs nft, ssh, sshd and curl:
//
//	go test -tags netns ./lab/acceptance
package acceptance
