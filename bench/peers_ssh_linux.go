package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/crypto/ssh"
)

// sshCipher is what ssh is told to use; the fastest it has where the processor
// does AES.
const sshCipher = "aes128-gcm@openssh.com"

func sshPeer() *peer {
	return &peer{
		name:  "ssh",
		about: "ssh -D and sshd, " + sshCipher,
		install: func(ctx context.Context, in *installer) error {
			if err := installDebian(ctx, in.log, []string{"ssh", "sshd"}, "openssh-client", "openssh-server"); err != nil {
				return err
			}
			for _, name := range []string{"ssh", "sshd"} {
				path, err := exec.LookPath(name)
				if err != nil {
					return err
				}
				in.programs[name] = path
			}
			// "OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.18" on standard error
			if out, err := exec.CommandContext(ctx, "ssh", "-V").CombinedOutput(); err == nil {
				version, _, _ := strings.Cut(string(out), ",")
				in.about["ssh"] = version + ": ssh -D and sshd, " + sshCipher
			}
			return nil
		},
		start: startSSH,
	}
}

func startSSH(ctx context.Context, s *site) error {
	host, hostFile, err := sshKey(s, "host")
	if err != nil {
		return err
	}
	user, userFile, err := sshKey(s, "user")
	if err != nil {
		return err
	}
	authorized, err := s.file("authorized_keys", string(ssh.MarshalAuthorizedKey(user)))
	if err != nil {
		return err
	}
	hosts, err := s.file("known_hosts", fmt.Sprintf("[%s]:2222 %s", serverAddr, ssh.MarshalAuthorizedKey(host)))
	if err != nil {
		return err
	}
	config, err := s.file("sshd_config", fmt.Sprintf(`ListenAddress %s:2222
HostKey %s
AuthorizedKeysFile %s
Ciphers %s
PidFile none
StrictModes no
UsePAM no
UseDNS no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding yes
`, serverAddr, hostFile, authorized, sshCipher))
	if err != nil {
		return err
	}
	// sshd wants this empty directory, and packages leave it to the boot.
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		return err
	}
	p := s.runServer("sshd", s.programs["sshd"], "-D", "-e", "-f", config)
	if err := expect(ctx, p.Stderr, "listening"); err != nil {
		return err
	}
	s.runClient("ssh", s.programs["ssh"], "-F", "none", "-N", "-T", "-D", proxyAddress, "-p", "2222", "-i", userFile,
		"-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes",
		"-o", "UserKnownHostsFile="+hosts, "-o", "Ciphers="+sshCipher, "-o", "ExitOnForwardFailure=yes",
		"root@"+serverAddr.String())
	return nil
}

// sshKey makes a key and gives the file of its private half.
func sshKey(s *site, name string) (ssh.PublicKey, string, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, "", err
	}
	block, err := ssh.MarshalPrivateKey(private, name)
	if err != nil {
		return nil, "", err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, "", err
	}
	file, err := s.file(name, string(pem.EncodeToMemory(block)))
	return key, file, err
}
