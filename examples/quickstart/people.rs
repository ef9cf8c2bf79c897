//! People who do not exist: believable rows of the users table, the same in every run.

use serde_json::{Value, json};

/// First names, last names and cities that go together.
struct Region {
    first_names: &'static str,
    last_names: &'static str,
    /// `city/country`.
    cities: &'static str,
}

/// Names of each kind in a region.
const NAMES: usize = 20;
/// Different full names that a region has.
const FULL_NAMES: usize = NAMES * NAMES;
/// Coprime to [`FULL_NAMES`]: neighbours in the table share neither first nor last name.
const STRIDE: usize = 147;
/// For when the names are used up.
const INITIALS: &[u8] = b"BCDFGHJKLMNPRSTVW";

const REGIONS: [Region; 14] = [
    Region {
        first_names: "Amara Chinedu Ngozi Tunde Folake Emeka Zainab Ifeoma Kelechi Yetunde \
                      Obinna Aisha Segun Chiamaka Uche Halima Babajide Nneka Ikenna Funmi",
        last_names: "Okafor Adeyemi Balogun Eze Nwosu Abubakar Okonkwo Oyelaran Ibrahim Chukwu \
                     Adebayo Danjuma Onyeka Lawal Uzor Bello Afolabi Nnamdi Ogunleye Idowu",
        cities: "Lagos/Nigeria Abuja/Nigeria Ibadan/Nigeria Accra/Ghana",
    },
    Region {
        first_names: "Haruto Yui Sota Hina Ren Sakura Kaito Mei Takumi Aoi Daiki Emi Kenji Naoko \
                      Hiroshi Yuki Makoto Rin Satoshi Ayumi",
        last_names: "Sato Suzuki Takahashi Tanaka Watanabe Ito Yamamoto Nakamura Kobayashi Kato \
                     Yoshida Yamada Sasaki Matsumoto Inoue Kimura Hayashi Shimizu Mori Ishikawa",
        cities: "Tokyo/Japan Kyoto/Japan Osaka/Japan Sapporo/Japan Fukuoka/Japan",
    },
    Region {
        first_names: "Freja Lars Ingrid Erik Astrid Nils Sigrid Bjørn Linnea Magnus Elsa Oskar \
                      Maja Axel Signe Gustav Tove Anders Ebba Henrik",
        last_names: "Lindqvist Hansen Johansson Nilsen Bergström Larsen Holm Sørensen Nyström \
                     Dahl Ekström Lund Ahlgren Solberg Westergaard Åkesson Moen Strand Kjær \
                     Söderberg",
        cities: "Oslo/Norway Stockholm/Sweden Copenhagen/Denmark Bergen/Norway Gothenburg/Sweden",
    },
    Region {
        first_names: "Aarav Diya Vivaan Ananya Arjun Ishita Rohan Meera Karthik Priya Nikhil \
                      Kavya Siddharth Lakshmi Rahul Pooja Varun Sneha Aditya Nandini",
        last_names: "Sharma Patel Iyer Reddy Nair Gupta Menon Chatterjee Rao Desai Kulkarni \
                     Mehta Bhat Banerjee Joshi Pillai Kapoor Singh Verma Krishnan",
        cities: "Mumbai/India Bengaluru/India Chennai/India Pune/India Kolkata/India \
                 Hyderabad/India",
    },
    Region {
        first_names: "Sofía Mateo Valentina Santiago Camila Sebastián Lucía Diego Isabela \
                      Joaquín Renata Emilio Martina Nicolás Paula Tomás Catalina Andrés Ximena \
                      Bruno",
        last_names: "García Rodríguez Fernández López Herrera Castillo Vargas Rojas Mendoza \
                     Salazar Fuentes Navarro Paredes Quiroga Ibáñez Acosta Benítez Cárdenas \
                     Delgado Escobar",
        cities: "Bogotá/Colombia Lima/Peru Santiago/Chile Madrid/Spain Montevideo/Uruguay \
                 Valencia/Spain",
    },
    Region {
        first_names: "Emma Lukas Hannah Felix Greta Jonas Clara Moritz Johanna Anton Frieda \
                      Konrad Marlene Emil Luise Jakob Katharina Theo Helene Matthias",
        last_names: "Müller Schneider Fischer Weber Wagner Becker Hoffmann Schäfer Koch Richter \
                     Klein Wolf Schröder Neumann Zimmermann Krüger Hartmann Vogel Winkler Lorenz",
        cities: "Berlin/Germany Hamburg/Germany Vienna/Austria Leipzig/Germany Zürich/Switzerland",
    },
    Region {
        first_names: "Ada Grace Alan Edith Hugh Nora Owen Ivy Declan Maeve Rhys Imogen Callum \
                      Beatrix Angus Rosalind Finlay Harriet Ewan Tamsin",
        last_names: "Whitfield O'Connor Gallagher Hughes Fletcher Ashworth MacLeod Byrne \
                     Pemberton Llewellyn Murray Thornton Doyle Hargreaves Sinclair Bancroft Kerr \
                     Winslow Fraser Penrose",
        cities: "London/Britain Edinburgh/Britain Dublin/Ireland Cardiff/Britain Bristol/Britain \
                 Cork/Ireland",
    },
    Region {
        first_names: "Wei Xiaoli Jun Meilin Hao Yan Lei Ting Bo Xin Ming Jing Feng Lan Qiang Hui \
                      Zhen Ying Tao Rui",
        last_names: "Wang Li Zhang Liu Chen Yang Zhao Huang Zhou Wu Xu Sun Ma Zhu Guo He Lin Gao \
                     Luo Zheng",
        cities: "Shanghai/China Chengdu/China Taipei/Taiwan Singapore/Singapore Hangzhou/China",
    },
    Region {
        first_names: "Giulia Luca Chiara Matteo Alessia Davide Elena Lorenzo Francesca Pietro \
                      Bianca Riccardo Ilaria Stefano Marta Enrico Serena Tommaso Viola Nicola",
        last_names: "Rossi Ferrari Esposito Bianchi Romano Colombo Ricci Marino Greco Conti \
                     DeLuca Mancini Costa Giordano Rizzo Lombardi Moretti Barbieri Fontana \
                     Santoro",
        cities: "Rome/Italy Milan/Italy Naples/Italy Turin/Italy Bologna/Italy Trieste/Italy",
    },
    Region {
        first_names: "Chloé Antoine Manon Théo Camille Hugo Léa Baptiste Inès Julien Margaux \
                      Rémi Élodie Gaspard Solène Étienne Capucine Maxime Apolline Yann",
        last_names: "Martin Bernard Dubois Moreau Laurent Girard Lefèvre Roux Fournier Mercier \
                     Blanc Guérin Chevalier Marchand Perrin Dufour Renaud Picard Gauthier Vasseur",
        cities: "Paris/France Lyon/France Marseille/France Brussels/Belgium Montréal/Canada \
                 Nantes/France",
    },
    Region {
        first_names: "Elif Mehmet Zeynep Emre Defne Can Ayşe Kerem Selin Burak Leyla Onur Ceren \
                      Deniz Esra Kaan Melis Ozan Yasemin Tolga",
        last_names: "Yılmaz Kaya Demir Çelik Şahin Yıldız Öztürk Aydın Arslan Doğan Kılıç Aslan \
                     Koç Kurt Polat Erdem Acar Güneş Tekin Ateş",
        cities: "Istanbul/Türkiye Ankara/Türkiye Izmir/Türkiye Bursa/Türkiye",
    },
    Region {
        first_names: "Ana João Beatriz Tiago Mariana Rafael Inês Gustavo Helena Miguel Larissa \
                      Caio Joana Duarte Fernanda Vasco Letícia Rui Clarice Otávio",
        last_names: "Silva Santos Oliveira Pereira Carvalho Almeida Ribeiro Teixeira Barbosa \
                     Cardoso Nogueira Moura Figueiredo Pinto Azevedo Monteiro Vieira Tavares \
                     Coelho Brandão",
        cities: "Lisbon/Portugal Porto/Portugal Recife/Brazil Curitiba/Brazil Luanda/Angola",
    },
    Region {
        first_names: "Layla Omar Fatima Youssef Nour Karim Salma Tariq Hana Ziad Mariam Samir \
                      Rania Khalil Dina Faris Yasmin Bilal Amina Jamal",
        last_names: "Haddad Khoury Mansour El-Sayed Nasser Farouk Saleh Hamdan Aziz Benali Zidan \
                     Rahman Tahir Darwish Najjar Sabbagh Qasim Fayad Amrani Bakri",
        cities: "Cairo/Egypt Amman/Jordan Casablanca/Morocco Beirut/Lebanon Tunis/Tunisia",
    },
    Region {
        first_names: "Zofia Jakub Hanna Kacper Maja Tomasz Oliwia Piotr Lena Marek Iga Wojciech \
                      Alicja Szymon Natalia Michał Kinga Łukasz Barbara Dawid",
        last_names: "Nowak Kowalska Wiśniewski Wójcik Kamińska Lewandowski Zielińska Szymański \
                     Dąbrowski Kozłowska Jankowski Mazur Krawczyk Piotrowska Grabowski Pawlak \
                     Michalska Zając Król Wróbel",
        cities: "Warsaw/Poland Kraków/Poland Gdańsk/Poland Wrocław/Poland Prague/Czechia \
                 Vilnius/Lithuania",
    },
];

// Lists, separated by slashes.
const PROFESSIONS: &str = "\
    Marine biologist/Structural engineer/Pastry chef/Night-shift nurse/Cartographer/\
    High-school chemistry teacher/Luthier/Database administrator/Documentary editor/\
    Tram driver/Botanist/Product designer/Translator/Paediatrician/Carpenter/Sound engineer/\
    Tax lawyer/Bookbinder/Meteorologist/Street photographer/Physiotherapist/Beekeeper/\
    Glassblower/Veterinary surgeon";
const PASTIMES: &str = "\
    bakes sourdough on Sundays/restores old bicycles/sings in a choir/\
    collects fountain pens/plays the cello badly/runs a chess club/\
    grows chillies on the balcony/swims in cold lakes/reads crime novels on trains/\
    keeps two greyhounds/paints miniature ships/hikes every long weekend/\
    writes letters by hand/mends radios/dances tango/plays go online/maps public fountains/\
    brews cider/watches birds before work/cooks for the whole street";
const PLANS: &str = "\
    Learning Portuguese./Training for a first marathon./Writing a book about bridges./\
    Looking for people to climb with./Moving to the seaside one day./\
    Ask me about mushrooms./Happy to mentor beginners./Open to freelance work./\
    Recently back from parental leave./Building a small boat./\
    Still looking for the best dumplings in town./Usually up before six.";
/// What somebody takes up: nobody begins with one of these, so that a search tells the new bio.
const CALLINGS: &str = "\
    lighthouse keeper/glacier guide/puppet maker/cheese affineur/piano tuner/bell ringer/\
    stunt coordinator/tea blender/bridge inspector/comet hunter";

/// Someone for the users table.
pub(crate) struct Person {
    number: usize,
    pub(crate) first_name: String,
    pub(crate) last_name: &'static str,
    bio: String,
    pub(crate) city: &'static str,
    pub(crate) country: &'static str,
}

/// Person `number`, from 0 on; it takes a hundred thousand until a full name comes again.
pub(crate) fn person(number: usize) -> Person {
    let (region, place) = (&REGIONS[number % REGIONS.len()], number / REGIONS.len());
    let (round, place) = (place / FULL_NAMES, place * STRIDE % FULL_NAMES);
    let mut first_name = word(region.first_names, ' ', place % NAMES).to_owned();
    if round > 0 {
        let initial = char::from(INITIALS[(round - 1) % INITIALS.len()]);
        first_name = format!("{first_name} {initial}.");
    }
    let (city, country) = city(word(region.cities, ' ', dice(number, 0)));
    let mut bio = format!(
        "{} in {city}, {}.",
        word(PROFESSIONS, '/', dice(number, 1)),
        word(PASTIMES, '/', dice(number, 2))
    );
    if !dice(number, 3).is_multiple_of(3) {
        bio = format!("{bio} {}", word(PLANS, '/', dice(number, 4)));
    }
    let last_name = word(region.last_names, ' ', place / NAMES);
    Person { number, first_name, last_name, bio, city, country }
}

/// Some city and its country.
pub(crate) fn somewhere(number: usize) -> (&'static str, &'static str) {
    let region = &REGIONS[dice(number, 5) % REGIONS.len()];
    city(word(region.cities, ' ', dice(number, 6)))
}

/// Something to take up.
pub(crate) fn calling(number: usize) -> &'static str {
    word(CALLINGS, '/', number)
}

impl Person {
    /// What the application would write; times are in seconds since 1970.
    pub(crate) fn row(&self) -> Value {
        let Self { number, first_name, last_name, bio, city, country } = self;
        let mailbox = ascii(&format!("{first_name}.{last_name}.{number}"));
        let created = SITE_OPENED + dice(*number, 7) % SITE_AGE;
        let picture = dice(*number, 8);
        json!({
            "email": format!("{mailbox}@example.com"),
            "password_hash": format!("$2b$12${}", noise(*number)),
            "first_name": first_name,
            "last_name": last_name,
            "bio": bio,
            "city": city,
            "country": country,
            "profile_image_url": (!picture.is_multiple_of(4))
                .then(|| format!("https://images.example.com/people/{picture:x}.jpg")),
            "is_active": !picture.is_multiple_of(10),
            "created": created,
            "updated": created + dice(*number, 9) % (SITE_OPENED + SITE_AGE - created),
        })
    }
}

/// 2019-01-01.
const SITE_OPENED: usize = 1_546_300_800;
/// Six years.
const SITE_AGE: usize = 189_345_600;

/// The entry at `number`, counted round and round.
fn word(list: &'static str, separator: char, number: usize) -> &'static str {
    let count = list.split(separator).count();
    list.split(separator).nth(number % count).unwrap_or_default()
}

fn city(entry: &'static str) -> (&'static str, &'static str) {
    entry.split_once('/').unwrap_or((entry, ""))
}

/// The same number each time, from one of many independent dice (SplitMix64).
fn dice(number: usize, salt: u64) -> usize {
    let mut z = (number as u64).wrapping_add(salt << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((z ^ (z >> 31)) >> 32).unwrap_or_default()
}

/// As long as the text of a bcrypt hash, and worth nothing.
fn noise(number: usize) -> String {
    const LETTERS: &[u8] = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    (0..53).map(|at| char::from(LETTERS[dice(number, 100 + at) % LETTERS.len()])).collect()
}

/// The local part of an address: what is not plain ASCII is spelt without its marks or left out.
fn ascii(name: &str) -> String {
    name.to_lowercase()
        .chars()
        .filter_map(|letter| match letter {
            'a'..='z' | '0'..='9' | '.' | '-' => Some(letter),
            'á' | 'ã' | 'ä' | 'å' | 'ą' => Some('a'),
            'ç' | 'ć' => Some('c'),
            'é' | 'è' | 'ê' | 'ë' => Some('e'),
            'ğ' => Some('g'),
            'í' | 'î' | 'ï' | 'ı' => Some('i'),
            'ł' => Some('l'),
            'ñ' | 'ń' => Some('n'),
            'ó' | 'ô' | 'õ' | 'ö' | 'ø' => Some('o'),
            'ś' | 'ş' => Some('s'),
            'ú' | 'ü' => Some('u'),
            'ý' => Some('y'),
            'ź' | 'ż' => Some('z'),
            _ => None,
        })
        .collect()
}
