import java.io.IOException;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.nio.charset.StandardCharsets;
import java.time.Duration;

/**
 * An instance of a service, known to Crony for as long as it lives: jobs name the service, Crony calls its instances.
 * Needs Crony.java beside it. Safe for use from several threads.
 */
public final class Registration implements AutoCloseable {
    private final String base, token, document;
    private final long ttl;
    private final HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5)).build();
    private String name = "", secret = "";
    private boolean healthy = true, away, closed;
    private int weight = 100;

    /**
     * Ask Crony's web at api to send the service's calls to this instance, too. The address is host:port as the nodes of
     * Crony reach it, the protocol grpc, http or https; the token has the scope service and the name of the service.
     * While the web is away it is tried again in the background, and who was forgotten meanwhile is registered anew;
     * throws Refused when Crony says no. After so long a silence as ttl (5 s to 10 min) it is forgotten.
     */
    public Registration(String api, String token, String service, String instance, String address, String protocol,
            String version, Duration ttl) throws Crony.Refused, InterruptedException {
        base = api.replaceAll("/+$", "") + "/api/v1/services/" + segment(service) + "/instances";
        this.token = token;
        this.ttl = ttl.toMillis();
        document = "{\"instance\": " + Crony.quote(instance) + ", \"address\": " + Crony.quote(address) + ", \"protocol\": "
            + Crony.quote(protocol) + ", \"version\": " + Crony.quote(version) + ", \"ttl\": \"" + ttl.getSeconds() + "s\"}";
        try {
            beat();
        } catch (Crony.Refused no) {
            throw no;
        } catch (IOException unanswered) {
            away = true;
        }
        Thread thread = new Thread(this::goOn, "crony-registration");
        thread.setDaemon(true);
        thread.start();
    }

    /** Whether it wants calls now, and its share of them (0 to 1000, at first 100); told at once. */
    public void set(boolean isHealthy, int share) throws IOException, InterruptedException {
        synchronized (this) {
            healthy = isHealthy;
            weight = share;
        }
        beat();
    }

    /** Take the instance off; when Crony cannot be asked, it is forgotten after its ttl. */
    @Override
    public synchronized void close() throws IOException {
        closed = true; // a call under way was not cut: it may have been the one that registers
        notifyAll();
        try {
            if (!secret.isEmpty()) {
                Crony.post(client, base + "/" + segment(name) + ":leave", secret, "{}");
                secret = "";
            }
        } catch (InterruptedException over) {
            Thread.currentThread().interrupt();
        }
    }

    private synchronized void goOn() {
        try {
            while (!closed) {
                wait(away ? Math.min(ttl / 3, 2000) : ttl / 3);
                if (closed) {
                    return;
                }
                try {
                    beat();
                    away = false;
                } catch (Crony.Refused no) {
                    away = false;
                } catch (IOException unanswered) {
                    away = true;
                }
            }
        } catch (InterruptedException over) {
            Thread.currentThread().interrupt();
        }
    }

    /** A sign of life; it registers where that is not known (any more). */
    private synchronized void beat() throws IOException, InterruptedException {
        for (boolean known = !secret.isEmpty();; known = false) {
            if (!known) {
                String told = Crony.post(client, base, token, document);
                name = Crony.member(told, "instance");
                secret = Crony.member(told, "secret");
            }
            try {
                String sign = "{\"healthy\": " + healthy + ", \"weight\": " + weight + "}";
                Crony.post(client, base + "/" + segment(name) + ":heartbeat", secret, sign);
                return;
            } catch (Crony.Refused no) {
                if (no.status != 401 || !known) {
                    throw no;
                }
                secret = ""; // forgotten meanwhile
            }
        }
    }

    private static String segment(String text) {
        return URLEncoder.encode(text, StandardCharsets.UTF_8).replace("+", "%20");
    }
}
