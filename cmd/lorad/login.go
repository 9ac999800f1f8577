package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"lorad/ca"
	"lorad/internal/durable"
	"lorad/proto"
)

// tokenFlags are the ways to give a token. In the arguments every user of the machine can read it.
type tokenFlags struct {
	Token     string `env:"LORAD_TOKEN" help:"The token; better in the environment variable LORAD_TOKEN or in --token-file: other users of the machine can read arguments."`
	TokenFile string `help:"File that holds the token; - for standard input." placeholder:"FILE"`
}

// maxTokenFile bounds what is read as a token, in bytes.
const maxTokenFile = 4 << 10

// read returns the token: from the file if one is named, else as given, else from the terminal.
func (t tokenFlags) read() (string, error) {
	switch {
	case t.TokenFile == "-":
		return readToken(os.Stdin)
	case t.TokenFile != "":
		f, err := os.Open(t.TokenFile)
		if err != nil {
			return "", err
		}
		defer f.Close()
		return readToken(f)
	case t.Token != "":
		return t.Token, nil
	case term.IsTerminal(int(os.Stdin.Fd())):
		fmt.Fprint(os.Stderr, "token (not shown): ")
		b, err := term.ReadPassword(int(os.Stdin.Fd()))
		fmt.Fprintln(os.Stderr)
		return strings.TrimSpace(string(b)), err
	}
	return "", usage(errors.New("a token is needed, in LORAD_TOKEN or --token-file: `lorad token create` on a node of the cluster makes one"))
}

func readToken(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxTokenFile))
	return strings.TrimSpace(string(b)), err
}

type loginCmd struct {
	Addr string `arg:"" help:"host:port of any node of the cluster."`
	tokenFlags
}

// loggedIn is what -o json shows.
type loggedIn struct {
	Server  string `json:"server"`
	Cluster string `json:"cluster"`
	Nodes   int    `json:"nodes"`
}

// hostPort refuses an address that no node can have.
func hostPort(addr string) error {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return usage(fmt.Errorf("%w; give HOST:PORT, as in %s", err, net.JoinHostPort(strings.Trim(addr, "[]:"), "7840")))
	}
	return nil
}

// atLeastOne refuses a token that nobody could use.
func atLeastOne(uses uint32, flag string) error {
	if uses == 0 {
		return usage(fmt.Errorf("%s 0: nobody could use the token; give 1 or more", flag))
	}
	return nil
}

func (l loginCmd) Run(a *app) error {
	if err := hostPort(l.Addr); err != nil {
		return err
	}
	text, err := l.read()
	if err != nil {
		return err
	}
	tok, err := ca.ParseJoinToken(text)
	if err != nil {
		return err
	}
	c, err := dialServer(a.ctx, l.Addr, tok)
	if err != nil {
		return err
	}
	defer c.Close()
	reply, err := c.Cluster(a.ctx, &proto.ClusterRequest{}) // is it good?
	if err != nil {
		return err
	}
	if err := changeLogins(func(all map[string]string) { all[l.Addr] = tok.Reveal() }); err != nil {
		return err
	}
	return a.print(loggedIn{l.Addr, reply.ClusterId, len(reply.Nodes)}, func(w io.Writer) {
		fmt.Fprintf(w, "logged in to cluster %s; ask it with: lorad --server %s nodes\n", reply.ClusterId, l.Addr)
	})
}

type logoutCmd struct {
	Addr string `arg:"" help:"host:port that was logged in to."`
}

func (l logoutCmd) Run(*app) error {
	if _, err := savedToken(l.Addr); err != nil {
		return err
	}
	return changeLogins(func(all map[string]string) { delete(all, l.Addr) })
}

// loginsFile holds the tokens by server, mode 0600. It is configuration and outlives state directories.
func loginsFile() (string, error) {
	dir, err := os.UserConfigDir()
	return filepath.Join(dir, "lorad", "logins.json"), err
}

// logins are the tokens by server. The file is refused when others may read it.
func logins() (map[string]string, error) {
	path, err := loginsFile()
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("read logins %s: mode %o lets others read tokens; run chmod 600 on it", path, st.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("read logins %s: damaged: %w; remove it and log in again", path, err)
	}
	return all, nil
}

func savedToken(server string) (ca.JoinToken, error) {
	all, err := logins()
	if err != nil {
		return ca.JoinToken{}, err
	}
	text, ok := all[server]
	if !ok {
		return ca.JoinToken{}, &exitError{exitDenied, fmt.Errorf("not logged in to %s: run `lorad login %s` with what `lorad token create --role viewer` printed on a node of the cluster", server, server)}
	}
	return ca.ParseJoinToken(text)
}

func changeLogins(change func(map[string]string)) error {
	path, err := loginsFile()
	if err != nil {
		return err
	}
	all, err := logins()
	if err != nil {
		return err
	}
	change(all)
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(path, append(text, '\n'), 0o600)
}
