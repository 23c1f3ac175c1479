package interop

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/watchword-dev/watchword/driver/kafka"
	"github.com/watchword-dev/watchword/revocation"
	"github.com/watchword-dev/watchword/revocation/feedtest"
)

// kafkaServer is a real Kafka broker that can be killed and started again.
type kafkaServer struct {
	address, dir string
	securedAt    string // the listener with TLS and SASL
	process      *process
}

const kafkaConfig = `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%[2]s
listeners=PLAINTEXT://%[1]s,CONTROLLER://%[2]s,SECURED://%[4]s
advertised.listeners=PLAINTEXT://%[1]s,SECURED://%[4]s
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL
inter.broker.listener.name=PLAINTEXT
log.dirs=%[3]s/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=2
background.threads=2
auto.create.topics.enable=false
`

// kafkaJava is Kafka's class with a heap that two cores and many neighbours can bear.
func kafkaJava(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	return exec.Command("java", append([]string{"-Xms64m", "-Xmx224m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-cp", installed(t, "kafka-4.3.1", "libs") + "/*"}, args...)...)
}

func startKafka(t *testing.T, ours papers) *kafkaServer {
	t.Helper()
	k := &kafkaServer{address: freePort(t), dir: t.TempDir(), securedAt: freePort(t)}
	config := filepath.Join(k.dir, "server.properties")
	if err := os.WriteFile(config, append(fmt.Appendf(nil, kafkaConfig, k.address, freePort(t), k.dir, k.securedAt), k.secured(ours)...), 0o600); err != nil {
		t.Fatal(err)
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	id[0] &= 0x7f // no leading -, which would be a flag
	if out, err := kafkaJava(t, "kafka.tools.StorageTool", "format", "-t", base64.RawURLEncoding.EncodeToString(id), "-c", config,
		"--add-scram", "SCRAM-SHA-512=[name=watchword,password="+engineSecret+"]", "--add-scram", "SCRAM-SHA-512=[name=weak,password="+engineSecret+"]").CombinedOutput(); err != nil {
		t.Fatalf("format: %v\n%s", err, out)
	}
	k.start(t)
	return k
}

func (k *kafkaServer) start(t *testing.T) {
	t.Helper()
	cmd := kafkaJava(t, "kafka.Kafka", filepath.Join(k.dir, "server.properties"))
	cmd.Dir = k.dir
	k.process = start(t, "kafka", cmd)
	k.process.ready(t, 2*time.Minute, listens(k.address))
}

// A real Kafka, killed and restarted; what a failover loses is TestBusKafkaFailover's, for it takes more than one broker.
//
// Covers: SIG-21
func TestBusKafka(t *testing.T) {
	ours := newPapers(t)
	server := startKafka(t, ours)
	latency(t, "kafka", openKafka(server.address, "latency")) // in quiet
	t.Parallel()
	t.Run("secured", func(t *testing.T) { server.securely(t, ours) })
	n := 0
	feedtest.Run(t, func(t *testing.T) feedtest.Engine {
		n++
		return feedtest.Engine{Open: openKafka(server.address, fmt.Sprintf("t%d", n)), Restart: func(t *testing.T) {
			server.process.kill()
			server.start(t)
		}, Pause: func(*testing.T) func() {
			server.process.pause()
			return server.process.resume
		}}
	})
}

func openKafka(address, topic string) func(t *testing.T) revocation.Log {
	return func(t *testing.T) revocation.Log {
		t.Helper()
		log, err := kafka.NewLog(kafka.LogConfig{Config: kafka.Config{Brokers: []string{address}, Topic: topic}})
		if err != nil {
			t.Fatal(err)
		}
		return log
	}
}
